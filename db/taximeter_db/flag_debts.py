"""What the flag writers keep in PostgreSQL: the epoch, and the flags that are still owed to Redis.

Every transaction that changes a balance or a limit notes a flag debt: ``ledger.booking.book`` and ``workspaces.set_limits``
do. Whoever then writes the flag settles the debt; where nobody comes to it, a worker's flag watch pays it within seconds.
Only a consumer of the broker leaves it out: until the flag is written its messages are not acknowledged, so they come again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import Connection

from taximeter_db.ledger.common import state_from_row
from taximeter_db.ledger.events import WorkspaceState
from taximeter_db.sql import statement

FIRST_EPOCH: Final = 1
"""Of a ledger whose flags were never built."""
_ALL_STATES = statement("all_states")
_NOTE = statement("note_flag_debts")
_READ = statement("read_flag_debts")
_SETTLE = statement("settle_flag_debts")
_SETTLE_WRITTEN = statement("settle_written_flags")


class FlagDebt(NamedTuple):
    """A workspace whose flag is owed, and when that was last noted."""

    workspace_id: str
    noted_at: dt.datetime


def note(conn: Connection[Any], workspace_ids: Iterable[str]) -> None:
    """Note that these workspaces' flags are owed to Redis, in the current transaction if there is one."""
    conn.execute(_NOTE, [sorted(set(workspace_ids))])


def owed(conn: Connection[Any], limit: int = 1_000) -> list[FlagDebt]:
    """The flags that are owed, the oldest debts first. Read the states to write after this."""
    return [FlagDebt(*row) for row in conn.execute(_READ, [limit])]


def settle(conn: Connection[Any], debts: Iterable[FlagDebt]) -> None:
    """Strike out debts that were paid, except those that were noted again since they were read."""
    debts = sorted(debts)
    conn.execute(_SETTLE, [[debt.workspace_id for debt in debts], [debt.noted_at for debt in debts]])


def settle_written(conn: Connection[Any], states: Sequence[WorkspaceState]) -> None:
    """Strike out the debts of workspaces that Redis has in these states, where they still are the newest ones."""
    conn.execute(_SETTLE_WRITTEN, [[state.workspace_id for state in states], [state.version for state in states]])


def epoch(conn: Connection[Any]) -> int:
    """The current epoch: versions of a newer epoch beat all those of an older one."""
    row = conn.execute(statement("read_epoch")).fetchone()
    return int(row[0]) if row else 1


def next_epoch(conn: Connection[Any], above: int = 0) -> int:
    """Begin a new epoch, higher than the current one and than `above`; returns it."""
    row = conn.execute(statement("next_epoch"), [above]).fetchone()
    return int(row[0]) if row else 1


class ClusterPosition(NamedTuple):
    """Where a cluster's history stands: a restore puts it back, or onto another branch."""

    system: int
    """The cluster's own number, made by initdb."""
    timeline: str
    """Another one after each promotion and each recovery to a point in time."""
    position: int
    """Bytes of write-ahead log that no crash takes away."""

    def went_back_from(self, seen: ClusterPosition) -> bool:
        """Whether this is not what comes after `seen`, which was noted before this was read."""
        return (self.system, self.timeline) != (seen.system, seen.timeline) or self.position < seen.position

    def promoted_from(self, seen: ClusterPosition) -> bool:
        """Whether this is another branch of the same cluster that goes further than `seen`, as a promoted standby's does."""
        return self.system == seen.system and self.timeline != seen.timeline and self.position >= seen.position


def cluster_position(conn: Connection[Any]) -> ClusterPosition | None:
    """Where the database stands now; None where this user may not know."""
    try:
        row = conn.execute(statement("cluster_position")).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return None
    return ClusterPosition(*row) if row else None


def all_states(conn: Connection[Any], chunk: int = 5_000) -> Iterator[list[WorkspaceState]]:
    """Every workspace's committed state, in chunks by id: constant memory at any number of workspaces."""
    after = ""
    while states := states_after(conn, after, chunk):
        yield states
        after = states[-1].workspace_id


def states_after(conn: Connection[Any], workspace_id: str, limit: int) -> list[WorkspaceState]:
    """The committed states of the next workspaces by id."""
    return [state_from_row(row) for row in conn.execute(_ALL_STATES, {"after": workspace_id, "limit": limit})]
