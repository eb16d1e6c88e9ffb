"""Audit: recompute every balance, running balance, number, counter and hash chain from the log, and compare."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import msgspec
from psycopg import Connection, IsolationLevel, sql

from taximeter_db import money, verify_chunks
from taximeter_db.checkpoint import Checkpoint, moved
from taximeter_db.verify_chunks import Chunk

_KEYS = """
SELECT (SELECT count(*) FROM taximeter.usage_keys), (SELECT coalesce(sum(usage_count), 0)::bigint FROM taximeter.workspaces)
"""
# A booking connection allows one kind of plan alone, which is not for this; and a chunk's sort must stay in memory.
_PLANNING = """
SET LOCAL work_mem = '256MB'; SET LOCAL jit = off; SET LOCAL max_parallel_workers_per_gather = 0;
SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on; SET LOCAL enable_seqscan = on;
SET LOCAL enable_bitmapscan = on
"""
_ENDS = """
SELECT usage_count, payment_count, usage_cost::text, payment_total::text, balance::text, chain
FROM taximeter.workspaces WHERE workspace_id = %s
"""

_SENTENCES = {
    "gap": "an entry of the log is missing, moved or numbered twice at entry {entry}",
    "running": "the balance stored after entry {entry} is not the sum of the log up to there",
    "chain": "entries {entry} to {upto} are not what was booked: the hash chain breaks there",
    "total": "the balance is {stored}, but its log adds up to {computed}, or a counter differs",
    "end": "the last entries of the log are missing or were replaced: the hash chain ends elsewhere",
    "checkpoint": "the log up to entry {entry} is not the one the checkpoint was made of: it was rewritten or cut off",
    "orphan": "the log has entries of a workspace that does not exist",
    "keys": "the counters of all workspaces add up to {computed} usages, but {stored} idempotency keys are remembered",
}


class Fault(msgspec.Struct, frozen=True):
    """Something that does not agree. `workspace_id` is empty where it concerns the whole ledger.

    `entry` counts a workspace's usages and payments together; where a fault can only be narrowed down to what was booked
    at once, `upto` is the last entry of that.
    """

    workspace_id: str
    kind: str
    entry: int | None = None
    stored: str | None = None
    computed: str | None = None
    upto: int | None = None

    @property
    def sentence(self) -> str:
        """What is wrong, for a person."""
        about = f"{self.workspace_id}: " if self.workspace_id else ""
        text = _SENTENCES[self.kind].format(
            entry=self.entry, upto=self.upto, stored=self.stored, computed=self.computed
        )
        return about + text


class Report(msgspec.Struct):
    """What was looked at, and what was wrong: nothing, if `faults` is empty.

    `entries_all` is how many usages and payments there are to look at, known from the beginning.
    """

    workspaces: int = 0
    usages: int = 0
    payments: int = 0
    faults: list[Fault] = msgspec.field(default_factory=list)
    entries_all: int = 0

    @property
    def ok(self) -> bool:
        """Whether everything agrees."""
        return not self.faults


def verify(
    conn: Connection[Any],
    progress: Callable[[Report], None] | None = None,
    *,
    helpers: Sequence[Connection[Any]] = (),
    checkpoint: Checkpoint | None = None,
    since: bool = False,
) -> Report:
    """Recompute everything in one snapshot; bookings go on meanwhile.

    Args:
        conn: A connection outside a transaction, in autocommit mode.
        progress: Called after each chunk with the report so far, by one thread at a time.
        helpers: More such connections to the same database, to look at several chunks at once.
        checkpoint: What the log must still contain.
        since: Recompute only what was booked after the checkpoint.
    """
    with _snapshot(conn, helpers):
        chunks = verify_chunks.cut_since(conn, checkpoint.starts) if checkpoint and since else verify_chunks.cut(conn)
        audit = _Audit(list(chunks), progress)
        with ThreadPoolExecutor(1 + len(helpers)) as pool:
            list(pool.map(audit.run, (conn, *helpers)))  # list: an error in one of them is raised here
        return audit.finish(conn, checkpoint)


@contextmanager
def _snapshot(conn: Connection[Any], helpers: Sequence[Connection[Any]]) -> Iterator[None]:
    """Open a read-only transaction on each connection, all with the same snapshot."""
    before = conn.isolation_level, conn.read_only
    conn.isolation_level, conn.read_only = IsolationLevel.REPEATABLE_READ, True
    try:
        with conn.transaction():
            conn.execute(_PLANNING, prepare=False)
            if not helpers:
                yield
                return
            (snapshot,) = conn.execute("SELECT pg_export_snapshot()").fetchone()  # type: ignore[misc]  # one row always
            for helper in helpers:
                helper.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                helper.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(snapshot))
                helper.execute(_PLANNING, prepare=False)
            yield
    finally:
        for helper in helpers:
            if not helper.broken:
                helper.rollback()
        conn.isolation_level, conn.read_only = before


class _Audit:
    """The chunks still to look at, and what was found so far; shared by the threads."""

    def __init__(self, chunks: list[Chunk], progress: Callable[[Report], None] | None) -> None:
        self._report = Report(entries_all=sum(chunk.entries for chunk in chunks))
        self._chunks = iter(chunks)
        self._counted: tuple[int, int] | None = None
        self._counting = False
        self._progress = progress
        self._lock = threading.Lock()
        self._stretched: dict[str, list[tuple[Chunk, tuple[Any, ...]]]] = {}

    def run(self, conn: Connection[Any]) -> None:
        """Look at chunks until there are none left."""
        while True:
            with self._lock:
                chunk = next(self._chunks, None)
                counts = chunk is None and not self._counting
                self._counting |= counts
            if counts:
                # by whichever connection runs out of chunks first, while the others are at theirs
                self._counted = conn.execute(_KEYS).fetchone()
            if chunk is None:
                return
            # never prepared: each chunk deserves a plan of its own
            run, *faulty = conn.execute(chunk.statement(), chunk.values(), prepare=False).fetchall()
            with self._lock:
                self._note(chunk, run, faulty)

    def _note(self, chunk: Chunk, run: tuple[Any, ...], faulty: list[tuple[Any, ...]]) -> None:
        report = self._report
        report.workspaces += chunk.workspaces
        report.usages += run[1]
        report.payments += run[2]
        report.faults += [fault for row in faulty if (fault := _fault(row))]
        if not chunk.whole:
            self._stretched.setdefault(chunk.first, []).append((chunk, run))
        if self._progress is not None:
            self._progress(report)

    def finish(self, conn: Connection[Any], checkpoint: Checkpoint | None) -> Report:
        """Compare what only the whole shows, and what was written down before."""
        report = self._report
        if checkpoint is not None:
            report.faults += [Fault(name, "checkpoint", entry) for name, entry in moved(conn, checkpoint)]
        for workspace_id, stretches in self._stretched.items():
            # a fault within it says more than the totals
            if all(fault.workspace_id != workspace_id for fault in report.faults):
                report.faults += _ends(conn, workspace_id, stretches)
        keys, usages = self._counted  # type: ignore[misc]  # every run ends with it
        if keys != usages:
            report.faults.append(Fault("", "keys", stored=str(keys), computed=str(usages)))
        report.faults.sort(key=lambda fault: (not fault.workspace_id, fault.workspace_id, fault.entry or 0))
        return report


def _fault(row: tuple[Any, ...]) -> Fault | None:
    """The first thing that is wrong in a workspace, as exactly as it can be told."""
    workspace_id, gap_at, running_at, stored, computed, unlinked_at, upto, _, is_orphan, is_off, is_unended = row
    if is_orphan:
        return Fault(workspace_id, "orphan")
    first = min(entry for entry in (gap_at, running_at, unlinked_at, 2**63) if entry is not None)
    if gap_at == first and gap_at is not None:
        return Fault(workspace_id, "gap", gap_at)
    # A wrong cost breaks the chain of what was booked with it; the running balance shows which entry it is.
    if running_at is not None and (unlinked_at is None or running_at <= upto):
        return Fault(workspace_id, "running", running_at)
    if unlinked_at is not None:
        return Fault(workspace_id, "chain", unlinked_at, upto=upto)
    if is_off:
        return Fault(workspace_id, "total", stored=stored, computed=computed)
    return Fault(workspace_id, "end") if is_unended else None


def _ends(conn: Connection[Any], workspace_id: str, stretches: list[tuple[Chunk, tuple[Any, ...]]]) -> list[Fault]:
    """Compare a large workspace's row with the sum of its stretches."""
    row = conn.execute(_ENDS, [workspace_id]).fetchone()
    number = money.from_numeric_text
    usages, payments = (sum(run[place] for _, run in stretches) for place in (1, 2))
    cost, paid = (sum(number(run[place]) for _, run in stretches) for place in (3, 4))
    last = max(stretches, key=lambda stretch: stretch[0].seq_upto)[1]
    if row is None:  # pragma: no cover - it was there in the same snapshot
        return [Fault(workspace_id, "orphan")]
    stored = (row[0], row[1], number(row[2]), number(row[3]), number(row[4]))
    if stored != (usages, payments, cost, paid, paid - cost):
        return [Fault(workspace_id, "total", stored=row[4], computed=money.format_usd(paid - cost))]
    return [] if (last[7] or b"") == row[5] else [Fault(workspace_id, "end")]
