"""Every advisory lock that this project takes, and the ways to take one.

An advisory lock is a number without a table: whoever uses the same number waits for the other. So all numbers stand here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, Protocol, cast

from psycopg import Connection

from taximeter_db.sql import statement


class AdvisoryLock(IntEnum):
    """The numbers; one work at a time under each. A number is never given to another work."""

    MIGRATIONS = 7_480_312_907
    """Changing the schema, and granting rights."""
    PARTITIONS = 7_480_312_908
    """Making partitions; taken by the SQL function ``ensure_partitions``."""
    FLAG_REBUILD = 7_480_312_909
    """Writing all flags."""
    REPLAY = 7_480_312_911
    """Booking the quarantined events that have a price now."""
    PRICE_BOOK = 7_480_312_912
    """Changing the price book."""
    REPRICE = 7_480_312_913
    """Posting the adjustments of a repricing."""
    ROLL_UP = 7_480_312_914
    """Bringing the rollups up to the log."""


class Holder(Protocol):
    """A connection that knows whether its session is its own, see `taximeter_db.connect`."""

    pooled: bool

    def again(self) -> Connection[Any]:
        """Open another connection of the same kind."""


@contextmanager
def hold(conn: Connection[Any], lock: AdvisoryLock) -> Iterator[None]:
    """Hold a lock for the block, after waiting for it."""
    if _shares_sessions(conn):
        with _transaction_beside(conn) as beside:
            hold_until_commit(beside, lock)
            yield
        return
    conn.execute(statement("advisory_lock"), [lock.value])
    try:
        yield
    finally:
        _unlock(conn, lock)


@contextmanager
def try_hold(conn: Connection[Any], lock: AdvisoryLock) -> Iterator[bool]:
    """Hold a lock for the block if it is free; yields whether it is held."""
    if _shares_sessions(conn):
        with _transaction_beside(conn) as beside:
            yield _is_true(beside, "try_advisory_xact_lock", lock)
        return
    held = _is_true(conn, "try_advisory_lock", lock)
    try:
        yield held
    finally:
        if held:
            _unlock(conn, lock)


def hold_until_commit(conn: Connection[Any], lock: AdvisoryLock) -> None:
    """Take a lock for the rest of the transaction, after waiting for it."""
    conn.execute(statement("advisory_xact_lock"), [lock.value])


def _shares_sessions(conn: Connection[Any]) -> bool:
    return getattr(conn, "pooled", False)


@contextmanager
def _transaction_beside(conn: Connection[Any]) -> Iterator[Connection[Any]]:
    """Open a transaction that does nothing but hold: behind a pooler a session's lock would be left to the next client."""
    holder = cast("Holder", conn)
    with holder.again() as beside, beside.transaction():
        beside.execute(statement("stay_idle"))
        yield beside


def _is_true(conn: Connection[Any], name: str, lock: AdvisoryLock) -> bool:
    row = conn.execute(statement(name), [lock.value]).fetchone()
    return bool(row and row[0])


def _unlock(conn: Connection[Any], lock: AdvisoryLock) -> None:
    if not (conn.broken or conn.closed):  # the end of a session gives its locks back
        conn.execute(statement("advisory_unlock"), [lock.value])
