"""The balance over time, at as many moments as a chart can show, whatever the length of the log.

Every usage and payment carries the balance after it. The rollups name the last usage of each quarter-hour, so the balance
at a moment is two look-ups; the newest payments are read whole.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import msgspec
from psycopg import Connection
from sqlalchemy import bindparam, select

from taximeter_db import money
from taximeter_db.core import Statement
from taximeter_db.models.ledger import Payment
from taximeter_db.sql import statements

PAYMENTS_MAX: Final = 200
_AT_EDGES: Final = statements("balances")["at_edges"]
_NEWEST_PAYMENTS = Statement(
    select(Payment.recorded_at, Payment.entry, Payment.balance_after)
    .where(Payment.workspace_id == bindparam("workspace_id"))
    .order_by(Payment.seq.desc())
    .limit(PAYMENTS_MAX)
)


class Balance(msgspec.Struct, frozen=True, order=True):
    """The balance, in picodollars, from the entry (a number over usages and payments) on that was booked at `at`."""

    entry: int
    at: dt.datetime
    balance: int


def balances(conn: Connection[Any], workspace_id: str, since: dt.datetime, edges: list[dt.datetime]) -> list[Balance]:
    """The balance since a quarter-hour: at each of the `edges`, quarter-hours too, and after the newest payments.

    The first one may lie before `since`: it is the balance with which the time began. Empty where nothing was booked.
    """
    rows = conn.execute(_AT_EDGES, {"workspace_id": workspace_id, "edges": [since, *edges]})
    every = {Balance(entry, at, money.from_numeric_text(text)) for at, entry, text in rows}
    every |= {
        Balance(entry, at, balance) for at, entry, balance in _NEWEST_PAYMENTS.all(conn, workspace_id=workspace_id)
    }
    balances = sorted(every)
    before = [balance for balance in balances if balance.at < since]
    return before[-1:] + [balance for balance in balances if balance.at >= since]
