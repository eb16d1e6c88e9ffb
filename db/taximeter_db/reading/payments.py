"""Payments as a page shows them."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
from psycopg import Connection

from taximeter_db import money

_RANGE = """
SELECT seq, payment_id, kind, amount::text, balance_after::text, transaction, note, occurred_at, recorded_at
FROM taximeter.payments
WHERE workspace_id = %(workspace_id)s AND seq BETWEEN %(first)s AND %(last)s
ORDER BY seq LIMIT 1000
"""


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
    number = money.from_numeric_text
    return [
        PaymentRow(seq, payment_id, kind, number(amount), number(after), transaction, note, occurred, recorded)
        for seq, payment_id, kind, amount, after, transaction, note, occurred, recorded in conn.execute(
            _RANGE, {"workspace_id": workspace_id, "first": first, "last": last}
        )
    ]


def get(conn: Connection[Any], workspace_id: str, seq: int) -> PaymentRow | None:
    """One payment by its number."""
    found = between(conn, workspace_id, seq, seq)
    return found[0] if found else None
