"""Booking in the past: the ledger's own booking, in one transaction in which the database's clock is set (decision 0110)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from taximeter_db.ledger import booking
from taximeter_db.ledger.events import Payment, Usage
from taximeter_db.sql import statements

_CLOCK = statements("demo_clock")


class Past:
    """Books at moments of the past, never backwards within a workspace."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.conn = conn

    def book(self, moment: dt.datetime, *events: Usage | Payment) -> None:
        """Book each event by itself at a moment."""
        self.conn.execute("SELECT set_config('taximeter_demo.now', %s, true)", [moment.isoformat()])
        for event in events:
            if isinstance(event, Payment):
                booking.book(self.conn, [], [event])
            else:
                booking.book(self.conn, [event])

    @contextmanager
    def present(self) -> Iterator[None]:
        """For the block, the clock is right again."""
        self.conn.execute("SET LOCAL search_path = taximeter, pg_catalog")
        yield
        self.conn.execute("SET LOCAL search_path = taximeter_demo, taximeter, pg_catalog")


@contextmanager
def past(conn: psycopg.Connection[Any], since: dt.datetime) -> Iterator[Past]:
    """A transaction with its clock set back, which is committed at the end with the clock right again."""
    with conn.transaction():
        conn.execute(
            "SELECT set_config('taximeter_demo.since', %s, true), set_config('taximeter_demo.now', %s, true)",
            [since.isoformat(), since.isoformat()],
        )
        conn.execute(_CLOCK["partition_before"], prepare=False)
        conn.execute(_CLOCK["set"], prepare=False)
        # Usages of this past may bear labels: without this, their rollups would begin with the migration that brought them.
        conn.execute("UPDATE taximeter.ledger_state SET labels_since = %s", [since])
        yield Past(conn)
        conn.execute(_CLOCK["reset"], prepare=False)
