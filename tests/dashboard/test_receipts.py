"""Receipts on the page: every way to charge, written so that a person can add it up."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from dashboard_factory import make_usage
from taximeter_cli.receipts import Receipts
from taximeter_dashboard.app import create_app
from taximeter_dashboard.auth.viewers import EVERY_WORKSPACE, OWNER, Keys, Viewer
from taximeter_dashboard.formatting import amounts, receipts
from taximeter_db import queries
from taximeter_db.ledger import booking
from taximeter_db.prices.changes import set_price
from taximeter_db.prices.store import Price, Target
from taximeter_db.prices.terms import Tier, Window
from taximeter_worker.consume.batch import price
from taximeter_worker.pricing.loading import load_book

TOOL = Target("scan", None, None)


def _booked(conn, quantities: dict[str, Any], *prices: Price) -> queries.UsageRow:
    for one in prices:
        set_price(conn, one, ever=True)
    usage = make_usage(tool="scan", provider=None, model=None, quantities=quantities)
    booking.book(conn, price(load_book(conn), [usage], []))
    row = queries.usages.get(conn, "acme", 1)
    assert row is not None
    return row


def _view(conn, quantities: dict[str, Any], *prices: Price) -> receipts.ReceiptView:
    row = _booked(conn, quantities, *prices)
    found = receipts.view(row, Receipts()(conn, row))
    assert found is not None
    parts = [*found.lines, *found.steps, *([found.rounding] if found.rounding else [])]
    assert sum(_number(one.amount) for one in parts) == Fraction(row.cost, 10**12)
    return found


def _number(text: str) -> Fraction:
    return Fraction(text.partition(" (")[0].replace("$", "").replace(",", "").replace(amounts.MINUS, "-"))


def _price(amount: str, unit: str = "pages", target: Target = TOOL, **other: Any) -> Price:
    return Price(target=target, unit=unit, amount=Decimal(amount), **{"per": Decimal(1), **other})


def test_blocks_that_were_begun(conn):
    found = _view(conn, {"pages": 2500}, _price("0.30", per=Decimal(1000), charge="package"))
    (line,) = found.lines
    assert (line.price, line.amount) == ("3 blocks of 1K begun, $0.30 each", "$0.90")
    assert found.subtotal is None


def test_a_price_says_since_when_it_holds(conn):
    row = _booked(conn, {"pages": 2}, _price("0.25"))
    receipt = Receipts()(conn, row)
    assert receipt is not None
    receipt["lines"][0]["effective_from"] = "2026-01-01T00:00:00Z"
    found = receipts.view(row, receipt)
    assert found is not None
    assert (found.version, found.since) == (1, dt.datetime(2026, 1, 1, tzinfo=dt.UTC))


def test_the_parts_of_graduated_tiers(conn):
    tiers = (Tier(100, Decimal("0.01")),)
    found = _view(conn, {"pages": 150}, _price("0.02", tiers=tiers, charge="graduated"))
    assert [(line.quantity, line.amount) for line in found.lines] == [("100", "$2.00"), ("50", "$0.50")]
    assert "the part above 100 pages" in found.lines[1].note


def test_hours_of_the_day(conn):
    found = _view(conn, {"pages": 1}, _price("0.02", daily=(Window(0, 86_400, Decimal("0.01")),)))
    assert "00:00 to 24:00 UTC" in found.lines[0].note
    assert found.lines[0].amount == "$0.01"


def test_rules_for_the_event_lead_from_the_subtotal_to_the_total(conn):
    discount = _price("0.5", "@multiplier", Target(None, None, None, "acme"))
    found = _view(conn, {"pages": 3}, _price("0.01"), discount, _price("0.10", "@fee"), _price("0.50", "@minimum"))
    assert found.subtotal is not None
    assert found.subtotal.amount == "$0.03"
    assert [(step.rule, step.amount) for step in found.steps] == [
        ("Charge per event", "+$0.10"),
        ("Multiplier", f"{amounts.MINUS}$0.065"),
        ("Minimum charge", "+$0.435"),
    ]
    assert found.steps[1].note.startswith("\N{MULTIPLICATION SIGN} 0.5, workspace acme")


def test_what_no_decimal_can_say_stands_with_about_how_much(conn):
    found = _view(conn, {"pages": 1}, _price("1", per=Decimal(3600)))
    assert found.lines[0].amount == "$1/3600 (≈$0.0002778)"
    assert found.rounding is not None


@pytest.mark.parametrize("javascript", [True, False])
def test_the_page_shows_it(conn, settings, javascript: bool):
    from starlette.testclient import TestClient

    _booked(conn, {"pages": 3}, _price("0.01"), _price("0.50", "@minimum"))
    client = TestClient(create_app(settings, Receipts()), base_url="http://dash.example")
    client.cookies.set("taximeter_session", Keys(settings).session(Viewer("o", "O", {EVERY_WORKSPACE: OWNER})))
    headers = {"x-taximeter-part": "details"} if javascript else {}
    text = client.get("/workspaces/acme/usages/1", headers=headers).text
    for part in ("Subtotal", "Minimum charge", "+$0.47", "Total", "$0.50"):
        assert part in text
