"""The receipts that the composition root gives the page: for a discounted workspace too, and for an estimate."""

from __future__ import annotations

from decimal import Decimal

import pytest

from factories import make_usage
from taximeter_cli.receipts import Receipts
from taximeter_db import connect, queries
from taximeter_db.ledger import booking
from taximeter_db.prices.changes import set_price
from taximeter_db.prices.store import Price, Target
from taximeter_worker.consume.batch import price
from taximeter_worker.pricing.loading import load_book


@pytest.mark.parametrize(("workspace_id", "cost"), [("acme", "0.03"), ("other", "0.06")])
def test_a_workspaces_discount_is_on_its_receipt(database_url: str, workspace_id: str, cost: str):
    with connect.booking_connection(database_url) as conn:
        per_page = Price(target=Target("scan", None, None), unit="pages", amount=Decimal("0.02"), per=Decimal(1))
        half = Price(target=Target(None, None, None, "acme"), unit="@multiplier", amount=Decimal("0.5"), per=Decimal(1))
        for entry in (per_page, half):
            set_price(conn, entry, ever=True)
        usage = make_usage(workspace_id, tool="scan", provider=None, model=None, quantities={"pages": 3})
        booking.book(conn, price(load_book(conn), [usage], []))
        row = queries.usages.get(conn, workspace_id, 1)
        assert row is not None
        receipt = Receipts()(conn, row)
    assert receipt is not None
    assert receipt["cost"] == cost
    assert not row.estimated
