"""`taximeter prices`, as a person and as a machine use it."""

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cloud_events import usage_event
from dashboard_factory import make_usage
from taximeter_cli import main
from taximeter_db.connect import booking_connection
from taximeter_db.ledger import booking


class Done(NamedTuple):
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], Run]:
    """Make a `run` that gives the command line to `taximeter`, with a database, in this process."""

    def make(database_url: str) -> Run:
        def run(*arguments: str, stdin: str = "") -> Done:
            for name in [name for name in os.environ if name.startswith("TAXIMETER_")]:
                monkeypatch.delenv(name)
            monkeypatch.setenv("TAXIMETER_DATABASE_URL", database_url)
            monkeypatch.setattr(sys, "argv", ["taximeter", "prices", *arguments])
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            code = main.run()
            return Done(code, *capsys.readouterr())

        return run

    return make


@pytest.fixture
def run(database_url: str, runner: Callable[[str], Run]) -> Run:
    """Run the command against a migrated, empty database."""
    return runner(database_url)


@pytest.fixture
def run_without_database(runner: Callable[[str], Run]) -> Run:
    """Run the command where no database answers: what it finds out before it asks one."""
    return runner("postgresql://nobody@127.0.0.1:1/none")


def ok(done: Done) -> str:
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def refused(done: Done, code: int) -> str:
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.replace("│", " ").split())


def event(**changes: Any) -> dict[str, Any]:
    return {**usage_event(event_id="e-1", **{"quantities": {"requests": 3}, **changes.pop("data", {})}), **changes}


def test_set_list_and_explain_a_price(run: Run, tmp_path: Path) -> None:
    said = ok(run("set", "--tool", "chat", "--unit", "requests", "--price", "2.50", "--per", "1000"))
    assert "tool chat, requests: 2.50 per 1,000 from the beginning" in said
    assert "revision 1" in said
    assert "Nothing to do" in ok(run("set", "--tool", "chat", "--unit", "requests", "--price", "2.5", "--per", "1000"))
    listed = ok(run("list"))
    assert "2.50 per 1,000" in listed
    assert "the beginning" in listed
    as_json = json.loads(ok(run("list", "--json")))
    assert as_json["revision"] == 1
    assert as_json["prices"][0]["amount"] == "2.50"
    file = tmp_path / "event.json"
    file.write_text(json.dumps(event(), indent=1))
    receipt = json.loads(ok(run("explain", str(file), "--json")))
    assert (receipt["cost"], receipt["exact"], receipt["rounding"]) == ("0.0075", "0.0075", "0")
    assert receipt["lines"][0]["quantity"] == "3"
    table = ok(run("explain", "-", stdin=json.dumps(event())))
    for part in ("requests", "2.50 per 1,000", "0.0075", "half-even", "revision 1"):
        assert part in table


def test_explain_reads_lines_and_names_what_has_no_price(run: Run) -> None:
    ok(run("set", "--tool", "chat", "--unit", "requests", "--price", "1"))
    lines = [event(), event(id="e-2", data={"tool": "mail"}), event(id="e-3", time="tomorrow")]
    done = run("explain", "-", "--json", stdin="\n".join(map(json.dumps, lines)))
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found[0]["cost"] == "3"
    assert "taximeter prices set --tool mail --unit requests" in found[1]["error"]
    assert found[2]["error"].startswith("bad_time")
    assert "price_missing" in refused(run("explain", "-", stdin=json.dumps(lines[1])), 1)


def test_a_new_price_follows_and_history_shows_both(run: Run) -> None:
    ok(run("set", "--provider", "openai", "--model", "gpt-4o", "--unit", "requests", "--price", "1"))
    said = ok(run("set", "--provider", "openai", "--model", "gpt-4o", "--unit", "requests", "--price", "2"))
    assert "Until then: 1 per 1 from the beginning" in said
    ok(
        run(
            "set",
            "--provider",
            "openai",
            "--model",
            "gpt-4o",
            "--unit",
            "requests",
            "--price",
            "3",
            "--from",
            "2100-01-01",
        )
    )
    assert [price["amount"] for price in json.loads(ok(run("list", "--json")))["prices"]] == ["2", "3"]
    whole = json.loads(ok(run("list", "--history", "--json", "--provider", "openai")))["prices"]
    assert [price["amount"] for price in whole] == ["1", "2", "3"]
    assert whole[2]["effective_from"] == "2100-01-01T00:00:00Z"
    assert "No prices match" in ok(run("list", "--tool", "nobody"))


def test_overlap_and_back_dating_are_refused_with_both_versions(run: Run) -> None:
    one = ("set", "--tool", "chat", "--unit", "requests")
    ok(run(*one, "--price", "1"))
    said = refused(run(*one, "--price", "2", "--from", "2026-01-01"), 1)
    assert "1 per 1 from the beginning" in said
    assert "2 per 1 from 2026-01-01T00:00:00Z" in said
    assert "--backdated" in said
    ok(run(*one, "--price", "2", "--from", "2026-01-01", "--backdated"))
    assert "Overlap" in refused(run(*one, "--price", "3", "--from", "2026-01-01", "--backdated"), 1)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--tool", "chat", "--unit", "requests"], "--price"),
        (["--tool", "chat", "--unit", "requests", "--price", "NaN"], "plain decimal"),
        (["--tool", "chat", "--unit", "requests", "--price", "1e-6"], "plain decimal"),
        (["--tool", "chat", "--unit", "requests", "--price", "1", "--per", "0"], "more than 0"),
        (["--tool", "chat", "--unit", "input tokens", "--price", "1"], "is not a unit"),
        (["--unit", "requests", "--price", "1"], "needs a target"),
        (["--provider", "openai", "--unit", "requests", "--price", "1"], "both the provider and the model"),
        (["--tool", "chat", "--model", "m", "--unit", "requests", "--price", "1"], "both the provider and the model"),
        (["--tool", "chat", "--unit", "requests"], "--unit and --price"),
        (["--tool", "t" * 129, "--unit", "requests", "--price", "1"], "1 to 128"),
        (["--provider", "p" * 129, "--model", "m", "--unit", "requests", "--price", "1"], "1 to 128"),
        (["--provider", "p", "--model", "m" * 257, "--unit", "requests", "--price", "1"], "1 to 256"),
        (["--tool", "chat", "--unit", "requests", "--price", "1", "--minimum", "2"], "--unit and --price"),
        (["--tool", "chat", "--unit", "images", "--price", "1", "--tier", "many=2"], "such as 1000=0.8"),
        (["--tool", "chat", "--unit", "images", "--price", "1", "--hours", "noon=2"], "such as 01:00-04:00=0.3"),
        (["--tool", "chat", "--unit", "images", "--price", "1", "--charge", "graduated"], "needs tiers"),
        (["--workspace", "acme", "--unit", "images", "--price", "1"], "multiplier of its own"),
        (["--tool", "chat", "--unit", "requests", "--price", "1", "--from", "soon"], "2026-12-01"),
        (["--tool", "chat", "--unit", "requests", "--price", "1", "--from", "2026-12-01T00:00:00"], "time zone"),
    ],
)
def test_usage_errors_end_with_2_and_say_what_to_do(run_without_database: Run, arguments: list[str], what: str) -> None:
    assert what in refused(run_without_database("set", *arguments), 2)


def test_explain_needs_one_source(run_without_database: Run) -> None:
    run = run_without_database
    for arguments in ([], ["--workspace", "acme"], ["-", "--workspace", "acme", "--event", "e"]):
        assert "FILE" in refused(run("explain", *arguments), 2)
    assert "no file" in refused(run("explain", "nowhere.json"), 2)
    assert "cannot be reached" in refused(run("list"), 1)


def test_import_the_catalogue_and_round_trip_the_book(
    run: Run, new_database: Callable[[], str], runner: Callable[[str], Run], tmp_path: Path
) -> None:
    dry = ok(run("import", "genai-prices", "--dry-run"))
    assert "A dry run" in dry
    assert "batch processing" in dry
    assert "empty" in ok(run("list"))
    assert json.loads(ok(run("import", "genai-prices", "--json")))["written"] is True
    again = json.loads(ok(run("import", "genai-prices", "--json")))
    assert (again["written"], again["added"], again["changed"], again["refused"]) == (False, [], [], [])
    assert "more: narrow by" in ok(run("list"))
    book = tmp_path / "book.json"
    ok(run("export", str(book)))
    other = runner(new_database())
    assert "0 refused" in ok(other("import", str(book)))
    assert ok(other("export")) == book.read_text() == ok(other("export", "--json"))
    told = json.loads(ok(other("export", str(book), "--json")))
    assert (told["file"], told["prices"]) == (str(book), len(json.loads(book.read_text())["prices"]))


def test_a_file_with_a_refused_price_changes_nothing(run: Run, tmp_path: Path) -> None:
    ok(run("set", "--tool", "chat", "--unit", "requests", "--price", "1"))
    book = tmp_path / "book.json"
    line = {"tool": "chat", "unit": "requests", "amount": "2", "effective_from": "2026-01-01T00:00:00Z"}
    book.write_text(json.dumps({"format": "taximeter-prices/1", "prices": [line, {**line, "unit": "images"}]}))
    done = run("import", str(book))
    assert "nothing was imported" in refused(done, 1)
    assert "refused  tool chat, requests" in done.stdout
    assert json.loads(ok(run("list", "--json")))["revision"] == 1
    ok(run("import", str(book), "--backdated"))
    book.write_text("{}")
    assert "not a price file" in refused(run("import", str(book)), 1)
    assert "no file" in refused(run("import", "nowhere.json"), 2)


def test_a_booked_usage_is_explained_by_the_book_that_priced_it(run: Run, database_url: str) -> None:
    ok(run("set", "--tool", "chat", "--unit", "seconds", "--price", "1.02", "--per", "3600"))
    fields = {"provider": None, "model": None, "quantities": {"seconds": 4}, "occurred_at": 1_795_305_600_000_000}
    with booking_connection(database_url) as conn:
        for event_id, cost in (("e-1", "0.001133333333"), ("e-2", "9")):
            booking.book(conn, [make_usage("acme", event_id, cost, **fields)])
    ok(run("set", "--tool", "chat", "--unit", "seconds", "--price", "99", "--from", "2026-01-01", "--backdated"))
    receipt = json.loads(ok(run("explain", "--workspace", "acme", "--event", "e-1", "--json")))
    assert (receipt["cost"], receipt["exact"]) == ("0.001133333333", "17/15000")
    assert receipt["rounding"] == "-1/3000000000000"
    assert receipt["price_version"] == 1
    assert "tampered" in refused(run("explain", "--workspace", "acme", "--event", "e-2"), 1)
    assert "no booked usage" in refused(run("explain", "--workspace", "acme", "--event", "e-3"), 1)
