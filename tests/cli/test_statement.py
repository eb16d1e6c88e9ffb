"""`taximeter statement` and `taximeter receipt`: tables, JSON, CSV and PDF of a month and of a payment."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from factories import make_payment, make_usage
from past import past
from taximeter_cli import main
from taximeter_db import connect
from taximeter_db.statements import pdf

Run = Callable[..., str]
DECEMBER = dt.datetime(2025, 12, 5, 12, tzinfo=dt.UTC)


@pytest.fixture
def run(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Give a command line in this process; its output, or with ``code`` its errors."""
    monkeypatch.setenv("TAXIMETER_DATABASE_URL", database_url)
    monkeypatch.setenv("TAXIMETER_REDIS_URL", redis_url)

    def run(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr("sys.argv", ["taximeter", *arguments])
        assert main.run() == code, capsys.readouterr()
        done = capsys.readouterr()
        return done.err if code else done.out

    return run


@pytest.fixture
def booked(database_url: str) -> None:
    transaction = {"provider": "stripe", "reference": "pi_3"}
    with connect.booking_connection(database_url) as conn, past(conn, DECEMBER) as it:
        it.book(
            DECEMBER,
            make_payment("acme", "25", "p-1", transaction=transaction, note="Übertrag, 雪"),
            make_payment("acme", "-5.5", "p-2", kind="clawback", transaction={"payment_id": "p-1"}),
            make_usage("acme", cost="0.000000000007", user_id="=cmd|'/c calc'!A1"),
            make_usage("acme", cost="1.25", tool="search", model=None),
        )


def test_a_month_adds_up_for_machines_and_people(run: Run, booked):
    found = json.loads(run("statement", "acme", "--month", "2025-12", "--json"))
    assert {name: found[name] for name in ("opening", "payments", "usage", "closing")} == {
        "opening": "0",
        "payments": "19.5",
        "usage": "1.250000000007",
        "closing": "18.249999999993",
    }
    assert (found["number"], found["final"], found["month"], found["zone"]) == (1, True, "2025-12", "UTC")
    assert found["payments_by_kind"] == [
        {"kind": "clawback", "count": 1, "amount": "-5.5"},
        {"kind": "top_up", "count": 1, "amount": "25"},
    ]
    assert found["usage_by_model"] == [
        {"name": "gpt-4o", "names": 1, "usages": 1, "cost": "0.000000000007"},
        {"name": None, "names": 0, "usages": 1, "cost": "1.25"},
    ]
    shown = run("statement", "acme", "--month", "2025-12")
    for part in ("acme-2025-12-1", "18.249999999993 USD", "clawback", "(not named)", "search"):
        assert part in shown
    months = json.loads(run("statement", "acme", "--json"))
    assert months[-1]["month"] == "2025-12"
    assert months[0]["final"] is False
    assert "runs" in run("statement", "acme")
    assert "has no statements" in run("statement", "other")


def test_the_rows_as_csv_sum_up_and_hold_no_formula(run: Run, booked, tmp_path: Path):
    file = tmp_path / "s.csv"
    run("statement", "acme", "--month", "2025-12", "--csv", str(file))
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert [row["section"] for row in rows] == [
        *("opening", "payments", "payments", "usage_by_tool", "usage_by_tool"),
        *("usage_by_model", "usage_by_model", "usage_by_user", "usage_by_user", "closing"),
    ]
    assert "'=cmd|'/c calc'!A1" in [row["name"] for row in rows]
    assert rows[-1]["amount_usd"] == "18.249999999993"


def test_a_closed_month_is_the_same_pdf_for_ever(run: Run, booked, tmp_path: Path):
    files = [tmp_path / "a.pdf", tmp_path / "b.pdf"]
    for file in files:
        run("statement", "acme", "--month", "2025-12", "--pdf", str(file))
    first, second = (file.read_bytes() for file in files)
    assert first.startswith(b"%PDF-")
    assert first == second


def test_a_receipt_for_people_machines_and_as_pdf(run: Run, booked, tmp_path: Path):
    found = json.loads(run("receipt", "acme", "p-2", "--json"))
    assert (found["amount"], found["balance_before"], found["balance_after"]) == ("-5.5", "25", "19.5")
    assert "p-1" in run("receipt", "acme", "p-2")
    file = tmp_path / "r.pdf"
    run("receipt", "acme", "p-1", "--pdf", str(file))
    assert file.read_bytes().startswith(b"%PDF-")
    assert "has no payment 'p-9'" in run("receipt", "acme", "p-9", code=1)


def test_a_zone_moves_where_the_next_months_begin(run: Run, booked):
    assert "not a time zone" in run("workspace", "set", "acme", "--zone", "Mars", code=1)
    run("workspace", "set", "acme", "--zone", "Asia/Kathmandu")
    months = json.loads(run("statement", "acme", "--json"))
    assert (months[0]["zone"], months[0]["ends_at"][10:]) == ("Asia/Kathmandu", "T18:15:00Z")
    assert months[-1]["zone"] == "UTC"


@pytest.mark.parametrize(
    ("given", "says", "code"),
    [
        (("--month", "2025-13"), "not a month", 2),
        (("--pdf", "x.pdf"), "take one month", 2),
        (("--month", "2024-01"), "no statement of 2024-01", 1),
        (("--month", "2025-12", "--csv", "/proc/none/s.csv"), "cannot be written", 1),
    ],
)
def test_what_cannot_be_is_said(run: Run, booked, given: tuple[str, ...], says: str, code: int):
    assert says in run("statement", "acme", *given, code=code)


def test_without_the_extra_the_error_names_it(run: Run, booked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "fpdf", None)
    file = tmp_path / "s.pdf"
    assert "pip install 'taximeter[pdf]'" in run("statement", "acme", "--month", "2025-12", "--pdf", str(file), code=1)
    assert not file.exists()


@pytest.mark.parametrize(
    ("pico", "text"),
    [(0, "0.00"), (-(10**12), "-1.00"), (1_234_500_000_000_000, "1,234.50"), (-7, "-0.000000000007")],
)
def test_amounts_on_paper_are_exact(pico: int, text: str):
    assert pdf.exact(pico) == text


def test_credit_that_expires_is_booked_with_its_terms(run: Run):
    terms = ("--kind", "promo", "--expires", "2099-12-31T23:00:00+01:00", "--priority", "3")
    assert json.loads(run("credit", "acme", "5", "--id", "p", *terms, "--json"))["balance"] == "5"
    transaction = json.loads(run("receipt", "acme", "p", "--json"))["transaction"]
    assert transaction == {"grant_expires": "2099-12-31T22:00:00+00:00", "grant_priority": "3"}
    assert "bad_kind" in run("credit", "acme", "5", "--id", "q", "--expires", "2099-12-31T23:00:00Z", code=2)
