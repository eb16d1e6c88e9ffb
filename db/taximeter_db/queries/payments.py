"""Payments as a page shows them."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import msgspec
from psycopg import Connection
from sqlalchemy import bindparam, select

from taximeter_db.core import Statement
from taximeter_db.models.ledger import Payment

KINDS: Final = {
    "top_up": "Top-up",
    "promo": "Promo",
    "refund": "Refund",
    "clawback": "Clawback",
    "reinstated": "Reinstated",
    "expiry": "Expiry",
    "adjustment": "Adjustment",
}
"""The kinds of payments, and what people read."""
_COLUMNS = (
    Payment.seq,
    Payment.payment_id,
    Payment.kind,
    Payment.amount,
    Payment.balance_after,
    Payment.transaction,
    Payment.note,
    Payment.occurred_at,
    Payment.recorded_at,
)
_FIND = Statement(
    select(*_COLUMNS).where(
        Payment.workspace_id == bindparam("workspace_id"), Payment.payment_id == bindparam("payment_id")
    )
)
_BETWEEN = Statement(
    select(*_COLUMNS)
    .where(
        Payment.workspace_id == bindparam("workspace_id"), Payment.seq.between(bindparam("first"), bindparam("last"))
    )
    .order_by(Payment.seq)
    .limit(1_000)
)


class PaymentRow(msgspec.Struct, frozen=True):
    """A booked payment. Amounts in picodollars, signed."""

    seq: int
    payment_id: str
    kind: str
    amount: int
    balance_after: int
    transaction: dict[str, str] | None
    note: str | None
    occurred_at: dt.datetime
    recorded_at: dt.datetime

    @property
    def balance_before(self) -> int:
        """Picodollars."""
        return self.balance_after - self.amount


def between(conn: Connection[Any], workspace_id: str, first: int, last: int) -> list[PaymentRow]:
    """Payments number `first` to `last`, both included, in that order."""
    if last < first:
        return []
    return [PaymentRow(*row) for row in _BETWEEN.all(conn, workspace_id=workspace_id, first=first, last=last)]


def get(conn: Connection[Any], workspace_id: str, seq: int) -> PaymentRow | None:
    """One payment by its number."""
    return next(iter(between(conn, workspace_id, seq, seq)), None)


def find(conn: Connection[Any], workspace_id: str, payment_id: str) -> PaymentRow | None:
    """One payment by its id."""
    row = _FIND.first(conn, workspace_id=workspace_id, payment_id=payment_id)
    return None if row is None else PaymentRow(*row)
