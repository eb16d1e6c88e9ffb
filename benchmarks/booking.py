"""Booking by itself: made-up usages straight into `ledger.book`, over one connection, without broker, decoding and flags.

So a log comes about that was really booked, links of its chain and all; `upkeep` verifies it.
"""

from __future__ import annotations

import itertools
import time
import uuid

from benchmarks.load import Load
from taximeter_db import connect
from taximeter_db.ledger import booking
from taximeter_db.ledger.context import BookingContext
from taximeter_db.ledger.events import Usage

BATCH = 5_000
COST = 6_000_000_000
"""Picodollars."""


def book(url: str, load: Load) -> float:
    """Book the load; returns how many usages a second."""
    seconds = 0.0
    names = iter(load.workspace_ids())
    conn = connect.booking_connection(url)
    while some := list(itertools.islice(names, BATCH)):
        made = usages(some)
        began = time.monotonic()
        booking.book(conn, made, context=BookingContext(owe_flags=False))  # as a consumer does
        seconds += time.monotonic() - began
    conn.close()
    return load.events / seconds


def usages(workspace_ids: list[str]) -> list[Usage]:
    """A usage for each, with new ids that are ordered by time."""
    now = time.time_ns() // 1_000
    made = []
    for name in workspace_ids:
        key = uuid.UUID(int=(now // 1_000) << 80 | 7 << 76 | uuid.uuid4().int & (2**76 - 1))
        made.append(
            Usage(
                workspace_id=name,
                event_id=str(key),
                key=key.bytes,
                fingerprint=b"f" * 16,
                tool="chat",
                provider="openai",
                model="gpt-4o",
                quantities={"input_tokens": 1200, "output_tokens": 300},
                occurred_at=now,
                payload=None,
                raw=b"{}",
                cost=COST,
                price_version=1,
            )
        )
    return made
