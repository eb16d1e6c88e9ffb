"""Audit: recompute every balance, running balance, number, counter and hash chain from the log, and compare."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import msgspec
from psycopg import Connection, IsolationLevel, sql
from sqlalchemy import bindparam, func, select

from taximeter_db import money
from taximeter_db.audit import verify_budgets, verify_chunks, verify_keys, verify_settings
from taximeter_db.audit.checkpoint import Checkpoint, moved
from taximeter_db.audit.faults import Fault
from taximeter_db.audit.verify_chunks import Chunk
from taximeter_db.audit.verify_keys import Sums
from taximeter_db.core import Statement
from taximeter_db.models.base import Id
from taximeter_db.models.ledger import Workspace
from taximeter_db.sql import statements

_ENDS = Statement(
    select(
        Workspace.usage_count,
        Workspace.payment_count,
        Workspace.usage_cost,
        Workspace.payment_total,
        Workspace.balance,
        Workspace.chain,
    ).where(Workspace.workspace_id == bindparam("workspace_id", type_=Id))
)
_SNAPSHOT = Statement(select(func.pg_export_snapshot()))
_SHARE = statements("share_snapshot")
_SEARCHED_MAX = 100
"""Workspaces in which events that were booked twice are looked for."""
_EXPLAIN_KEYS = frozenset({"gap", "chain", "end", "checkpoint"})
"""Faults of a log whose usages are not those that were booked: their keys do not fit, and nothing is wrong with them."""


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
        if slices := verify_chunks.detached(conn):
            # without them every workspace has gaps; that would hide what is wrong
            return Report(faults=[_detached(*times) for times in slices])
        chunks = verify_chunks.cut_since(conn, checkpoint.starts) if checkpoint and since else verify_chunks.cut(conn)
        known = checkpoint.keys if checkpoint and since else Sums()
        audit = _Audit(list(chunks), progress, known)
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
            verify_chunks.plan(conn)
            if not helpers:
                yield
                return
            snapshot = _SNAPSHOT.scalar(conn)
            for helper in helpers:
                helper.execute(sql.SQL(_SHARE["begin"]))
                helper.execute(sql.SQL(_SHARE["snapshot"]).format(snapshot))
                verify_chunks.plan(helper)
            yield
    finally:
        for helper in helpers:
            if not helper.broken:
                helper.rollback()
        conn.isolation_level, conn.read_only = before


class _Audit:
    """The chunks still to look at, and what was found so far; shared by the threads."""

    def __init__(
        self, chunks: list[Chunk], progress: Callable[[Report], None] | None, keys_before: Sums | None
    ) -> None:
        self._report = Report(entries_all=sum(chunk.entries for chunk in chunks))
        self._walked = chunks
        self._chunks = iter(chunks)
        self._keys_before = keys_before
        """Of those whose usages are not looked at. None: unknown, so the keys of all usages are compared at the end."""
        self._keys: Sums | None = None
        self._usages = Sums()
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
            if counts and self._keys_before is not None:
                # by whichever connection runs out of chunks first, while the others are at theirs
                self._keys = verify_keys.of_keys(conn) - self._keys_before
            if chunk is None:
                return
            # never prepared: each chunk deserves a plan of its own
            run, *faulty = conn.execute(chunk.statement(), chunk.values(), prepare=False).fetchall()
            usages = verify_keys.of_usages(conn, chunk, run) if self._keys_before is not None else Sums()
            with self._lock:
                self._usages += usages
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
        report.faults += verify_settings.price_book(conn, checkpoint)
        report.faults += verify_settings.limits(conn, checkpoint)
        # what is wrong with the log explains what is wrong with its sums
        wrong = {fault.workspace_id for fault in report.faults}
        report.faults += [fault for fault in verify_settings.rollups(conn) if fault.workspace_id not in wrong]
        report.faults += verify_budgets.counters(conn, wrong)
        if not self._keys_agree(conn):
            report.faults += self._compare_keys(conn)
        report.faults.sort(key=lambda fault: (not fault.workspace_id, fault.workspace_id, fault.entry or 0))
        return report

    def _keys_agree(self, conn: Connection[Any]) -> bool:
        if self._keys is None or self._keys.agrees_with(self._usages):
            return self._keys is not None
        # the walk takes some ids for keys that only look like one
        return self._keys.agrees_with(verify_keys.of_usages_exactly(conn, self._walked))

    def _compare_keys(self, conn: Connection[Any]) -> list[Fault]:
        """Name the workspaces whose keys are not those of their usages, and the events that were booked twice."""
        explained = {fault.workspace_id for fault in self._report.faults if fault.kind in _EXPLAIN_KEYS}
        faults: list[Fault] = []
        disagreeing = verify_keys.disagreeing(conn, verify_chunks.cut(conn))
        for index, (workspace_id, keys, usages) in enumerate(disagreeing):
            if workspace_id not in explained:
                faults.append(Fault(workspace_id, "keys", stored=str(keys.count), computed=str(usages.count)))
            if index < _SEARCHED_MAX:
                twice = verify_keys.booked_twice(conn, workspace_id)
                faults += [Fault(workspace_id, "twice", entry, stored=event_id) for event_id, entry in twice]
        if self._keys is not None and not disagreeing and not explained:
            # the keys that the checkpoint counted are others now
            faults.append(Fault("", "keys", stored=str(self._keys.count), computed=str(self._usages.count)))
        return faults


def _fault(row: tuple[Any, ...]) -> Fault | None:
    """The first thing that is wrong in a workspace, as exactly as it can be told."""
    workspace_id, gap_at, running_at, stored, computed, unlinked_at, upto, _, is_orphan, is_off, is_unended, *_ = row
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


def _detached(starts_at: dt.datetime, ends_at: dt.datetime) -> Fault:
    first, end = (time.astimezone(dt.UTC).date().isoformat() for time in (starts_at, ends_at))
    return Fault("", "detached", stored=first, computed=end)


def _ends(conn: Connection[Any], workspace_id: str, stretches: list[tuple[Chunk, tuple[Any, ...]]]) -> list[Fault]:
    """Compare a large workspace's row with the sum of its stretches."""
    row = _ENDS.first(conn, workspace_id=workspace_id)
    number = money.from_numeric_text
    usages, payments = (sum(run[place] for _, run in stretches) for place in (1, 2))
    cost, paid = (sum(number(run[place]) for _, run in stretches) for place in (3, 4))
    last = max(stretches, key=lambda stretch: stretch[0].seq_upto)[1]
    if row is None:  # pragma: no cover - it was there in the same snapshot
        return [Fault(workspace_id, "orphan")]
    if row[:5] != (usages, payments, cost, paid, paid - cost):
        computed = money.format_usd(paid - cost)
        return [Fault(workspace_id, "total", stored=money.format_usd(row[4]), computed=computed)]
    return [] if (last[7] or b"") == row[5] else [Fault(workspace_id, "end")]
