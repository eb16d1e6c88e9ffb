"""`taximeter rebuild`: what people and machines are told, and the exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from factories import make_payment, make_usage
from taximeter_cli import main
from taximeter_db import connect
from taximeter_db.ledger import booking

Run = Callable[..., str]


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Give a command line to `taximeter rebuild` in this process; its output and its errors."""
    monkeypatch.setenv("TAXIMETER_DATABASE_URL", database_url)

    def run(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr("sys.argv", ["taximeter", "rebuild", *arguments])
        assert main.run() == code
        done = capsys.readouterr()
        return done.out + done.err

    return run


def test_a_moment_is_made_kept_and_told(run: Run, database_url: str) -> None:
    with connect.booking_connection(database_url) as conn:
        booking.book(conn, [], [make_payment("acme", "5")])
        booking.book(conn, [make_usage("acme", cost="7")])
    made = json.loads(run("--keep", "kept", "--json"))
    assert (made["ok"], made["workspaces"], made["usages"], made["payments"]) == (True, 1, 1, 1)
    assert (made["balance"], made["schema"]) == ("-2", "kept")
    assert made["statuses"] == {"sufficient": 0, "low": 0, "insufficient": 1}
    with connect.connection(database_url) as conn:
        rows = conn.execute("SELECT workspace_id, balance::text, ai_enabled FROM kept.balances").fetchall()
    assert rows == [("acme", "-2.000000000000", False)]
    told = run("--as-of", made["as_of"])
    assert "Everything agrees as of" in told
    assert "1 workspace, 1 usage, 1 payment, together -2 USD" in told
    assert "DROP SCHEMA kept CASCADE" in run("--keep", "kept", code=1)


def test_a_difference_ends_with_1_and_a_misspelled_time_with_2(run: Run, database_url: str) -> None:
    with connect.booking_connection(database_url) as conn:
        booking.book(conn, [make_usage("acme", cost="7")])
        conn.execute("UPDATE taximeter.workspaces SET usage_count = 9")
    assert "WRONG  acme: its usage_count is 9, but the log says 1" in run(code=1)
    (one,) = json.loads(run("--json", code=1))["differences"]
    assert (one["kind"], one["stored"], one["computed"]) == ("table", "9", "1")
    assert "is not a time" in run("--as-of", "yesterday", code=2)
    assert "has no time zone" in run("--as-of", "2026-11-30T10:00:00", code=2)
    assert "lies ahead" in run("--as-of", "2999-01-01", code=1)
