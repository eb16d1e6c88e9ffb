"""What was spent since a moment, exactly, without adding up the log.

Every usage carries the balance after it. So what was spent from some usage on is the balance before it, plus the
payments that came after it, minus the balance now. And since `entry` numbers usages and payments together,
``entry - seq`` of a usage is the number of payments before it.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
from psycopg import Connection

from taximeter_db import money
from taximeter_db.queries.summary import Summary
from taximeter_db.queries.usages import seq_at
from taximeter_db.sql import statements

_SPENT_SINCE = statements("balances")["spent_since"]


class Spent(msgspec.Struct, frozen=True):
    """`usages` that cost `cost` picodollars, the first of them recorded at `since`."""

    usages: int
    cost: int
    since: dt.datetime


def spent_since(conn: Connection[Any], summary: Summary, moment: dt.datetime) -> Spent | None:
    """What was spent since `moment` and up to `summary`; None if nothing was."""
    seq = seq_at(conn, summary.workspace_id, moment)
    if seq > summary.usage_count:
        return None
    row = conn.execute(
        _SPENT_SINCE, {"workspace_id": summary.workspace_id, "seq": seq, "payments": summary.payment_count}
    ).fetchone()
    if row is None:
        return None
    before, paid = money.from_numeric_text(row[1]), money.from_numeric_text(row[2])
    return Spent(summary.usage_count - seq + 1, before + paid - summary.balance, row[0])
