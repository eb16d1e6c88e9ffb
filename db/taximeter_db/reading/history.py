"""The balance over time, at as many moments as a chart can show, whatever the length of the log.

Every usage and payment carries the balance after it. The rollups name the last usage of each quarter-hour, so the balance
at the end of a stretch of time is one index look-up; the newest payments are read whole.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import msgspec
from psycopg import Connection

from taximeter_db import money
from taximeter_db.reading.usages import seq_at

PAYMENTS_MAX: Final = 200
_USAGES = """
WITH last AS MATERIALIZED (
    SELECT max(last_seq) AS seq FROM taximeter.usage_rollups
    WHERE workspace_id = %(workspace_id)s AND slot >= %(since)s
    GROUP BY date_bin(make_interval(secs => %(width_seconds)s), slot, %(since)s)
)
SELECT u.recorded_at, u.entry, u.balance_after::text FROM last
JOIN taximeter.usages AS u ON u.workspace_id = %(workspace_id)s AND u.seq = last.seq
"""
_USAGE = """
SELECT recorded_at, entry, balance_after::text FROM taximeter.usages WHERE workspace_id = %s AND seq = %s
"""
_PAYMENTS = """
SELECT recorded_at, entry, balance_after::text FROM taximeter.payments
WHERE workspace_id = %s ORDER BY seq DESC LIMIT %s
"""


class Balance(msgspec.Struct, frozen=True, order=True):
    """The balance, in picodollars, from the entry (a number over usages and payments) on that was booked at `at`."""

    entry: int
    at: dt.datetime
    balance: int


def balances(conn: Connection[Any], workspace_id: str, since: dt.datetime, width: dt.timedelta) -> list[Balance]:
    """The balance since a quarter-hour: at the end of every stretch of `width`, and after the newest payments.

    The first one may lie before `since`: it is the balance with which the time began. Empty where nothing was booked.
    """
    found = conn.execute(
        _USAGES, {"workspace_id": workspace_id, "since": since, "width_seconds": int(width.total_seconds())}
    ).fetchall()
    first = seq_at(conn, workspace_id, since)
    found += conn.execute(_USAGE, [workspace_id, first - 1]).fetchall()
    found += conn.execute(_PAYMENTS, [workspace_id, PAYMENTS_MAX]).fetchall()
    every = sorted({Balance(entry, at, money.from_numeric_text(text)) for at, entry, text in found})
    before = [one for one in every if one.at < since]
    return before[-1:] + [one for one in every if one.at >= since]
