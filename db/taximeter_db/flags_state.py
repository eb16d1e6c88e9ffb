"""What the flag writers keep in PostgreSQL: the epoch, and the flags that are still owed to Redis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection

from taximeter_db.events import WorkspaceState
from taximeter_db.ledger_common import state_from_row
from taximeter_db.sql import statement

_REBUILD_LOCK = 7_480_312_909
_ALL_STATES = statement("all_states")


def epoch(conn: Connection[Any]) -> int:
    """The current epoch: versions of a newer epoch beat all those of an older one."""
    row = conn.execute("SELECT epoch FROM taximeter.ledger_state").fetchone()
    return int(row[0]) if row else 1


def next_epoch(conn: Connection[Any], above: int = 0) -> int:
    """Begin a new epoch, higher than the current one and than `above`; returns it."""
    row = conn.execute(
        "UPDATE taximeter.ledger_state SET epoch = greatest(epoch, %s) + 1 RETURNING epoch", [above]
    ).fetchone()
    return int(row[0]) if row else 1


class Place(NamedTuple):
    """Where a cluster's history stands: a restore puts it back, or onto another branch."""

    system: int
    """The cluster's own number, made by initdb."""
    timeline: str
    """Another one after each promotion and each recovery to a point in time."""
    position: int
    """Bytes of write-ahead log that no crash takes away."""

    def went_back_from(self, seen: Place) -> bool:
        """Whether this is not what comes after `seen`, which was noted before this was read."""
        return (self.system, self.timeline) != (seen.system, seen.timeline) or self.position < seen.position


def place(conn: Connection[Any]) -> Place | None:
    """Where the database stands now; None where that is not ours to know."""
    try:
        row = conn.execute(
            """SELECT system_identifier, left(pg_walfile_name(lsn), 8), (lsn - '0/0')::bigint
               FROM pg_control_system(), pg_current_wal_flush_lsn() AS lsn"""
        ).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return None
    return Place(*row) if row else None


@contextmanager
def rebuild_lock(conn: Connection[Any], *, wait: bool) -> Iterator[bool]:
    """Hold the lock under which flags are rebuilt; yields False if another holds it and `wait` is not asked for."""
    if wait:
        conn.execute("SELECT pg_advisory_lock(%s)", [_REBUILD_LOCK])
        held = True
    else:
        row = conn.execute("SELECT pg_try_advisory_lock(%s)", [_REBUILD_LOCK]).fetchone()
        held = bool(row and row[0])
    try:
        yield held
    finally:
        if held and not conn.broken:
            conn.execute("SELECT pg_advisory_unlock(%s)", [_REBUILD_LOCK])


def all_states(conn: Connection[Any], chunk: int = 5_000) -> Iterator[list[WorkspaceState]]:
    """Every workspace's committed state, in chunks by id: constant memory at any number of workspaces."""
    after = ""
    while True:
        rows = conn.execute(_ALL_STATES, {"after": after, "limit": chunk}).fetchall()
        if not rows:
            return
        yield [state_from_row(row) for row in rows]
        after = rows[-1][0]


def note_stale(conn: Connection[Any], workspace_ids: Iterable[str]) -> None:
    """Write down that these workspaces' flags are owed to Redis."""
    conn.execute(
        """INSERT INTO taximeter.stale_flags (workspace_id) SELECT unnest(%s::text[])
           ON CONFLICT (workspace_id) DO UPDATE SET noted_at = clock_timestamp()""",
        [sorted(set(workspace_ids))],
    )


def stale(conn: Connection[Any], limit: int = 1_000) -> list[tuple[str, Any]]:
    """Workspaces whose flags are owed, each with the time of the newest debt; the oldest debts first."""
    return conn.execute(
        "SELECT workspace_id, noted_at FROM taximeter.stale_flags ORDER BY noted_at LIMIT %s", [limit]
    ).fetchall()


def settle_stale(conn: Connection[Any], debts: Iterable[tuple[str, Any]]) -> None:
    """Strike out paid debts, except those that were renewed since they were read."""
    debts = sorted(debts)
    conn.execute(
        """DELETE FROM taximeter.stale_flags AS s
           USING unnest(%s::text[], %s::timestamptz[]) AS d (workspace_id, noted_at)
           WHERE s.workspace_id = d.workspace_id AND s.noted_at = d.noted_at""",
        [[workspace_id for workspace_id, _ in debts], [noted_at for _, noted_at in debts]],
    )
