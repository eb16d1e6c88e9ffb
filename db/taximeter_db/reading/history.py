"""The balance over time, at as many moments as a chart can show, whatever the length of the log.

Every usage and payment carries the balance after it. The rollups name the last usage of each quarter-hour, so the balance
at a moment is two look-ups; the newest payments are read whole.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import msgspec
from psycopg import Connection

from taximeter_db import money

PAYMENTS_MAX: Final = 200
# One look-up for each edge, however many slots lie between two of them; and one partition for each, which the slot names.
_USAGES = """
WITH last AS MATERIALIZED (
    SELECT DISTINCT r.last_seq AS seq, r.slot FROM unnest(%(edges)s::timestamptz[]) AS e (moment)
    CROSS JOIN LATERAL (
        SELECT last_seq, slot FROM taximeter.usage_rollups
        WHERE workspace_id = %(workspace_id)s AND slot < e.moment
        ORDER BY slot DESC, last_seq DESC LIMIT 1
    ) AS r
)
SELECT u.recorded_at, u.entry, u.balance_after::text FROM last
JOIN taximeter.usages AS u ON u.workspace_id = %(workspace_id)s AND u.seq = last.seq
  AND u.recorded_at >= last.slot AND u.recorded_at < last.slot + interval '15 minutes'
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


def balances(conn: Connection[Any], workspace_id: str, since: dt.datetime, edges: list[dt.datetime]) -> list[Balance]:
    """The balance since a quarter-hour: at each of the `edges`, quarter-hours too, and after the newest payments.

    The first one may lie before `since`: it is the balance with which the time began. Empty where nothing was booked.
    """
    found = conn.execute(_USAGES, {"workspace_id": workspace_id, "edges": [since, *edges]}).fetchall()
    found += conn.execute(_PAYMENTS, [workspace_id, PAYMENTS_MAX]).fetchall()
    every = sorted({Balance(entry, at, money.from_numeric_text(text)) for at, entry, text in found})
    before = [one for one in every if one.at < since]
    return before[-1:] + [one for one in every if one.at >= since]
