"""Audit: recompute every balance, running balance and counter from the log, and compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from psycopg import Connection, IsolationLevel

from taximeter_db.sql import statement

_CHUNK = statement("verify_chunk")
_NEXT = """
SELECT workspace_id, usage_count + payment_count FROM taximeter.workspaces
WHERE workspace_id > %s ORDER BY workspace_id LIMIT %s
"""
_ORPHANS = """
SELECT DISTINCT workspace_id FROM (SELECT workspace_id FROM taximeter.usages
                                   UNION ALL SELECT workspace_id FROM taximeter.payments) AS l
WHERE NOT EXISTS (SELECT FROM taximeter.workspaces AS w WHERE w.workspace_id = l.workspace_id) LIMIT 100
"""
_KEYS = """
SELECT (SELECT count(*) FROM taximeter.usage_keys), (SELECT coalesce(sum(usage_count), 0)::bigint FROM taximeter.workspaces)
"""
ENTRIES_PER_CHUNK = 200_000
WORKSPACES_PER_CHUNK = 5_000

_SENTENCES = {
    "gap": "an entry of the log is missing or numbered twice at entry {entry}",
    "running": "the balance stored after entry {entry} is not the sum of the log up to there",
    "total": "the balance is {stored}, but its log adds up to {computed}, or a counter differs",
    "orphan": "the log has entries of a workspace that does not exist",
    "keys": "the log has {computed} usages, but {stored} idempotency keys are remembered",
}


class Fault(msgspec.Struct, frozen=True):
    """Something that does not agree. `workspace_id` is empty where it concerns the whole ledger."""

    workspace_id: str
    kind: str
    entry: int | None = None
    stored: str | None = None
    computed: str | None = None

    @property
    def sentence(self) -> str:
        """What is wrong, for a person."""
        about = f"{self.workspace_id}: " if self.workspace_id else ""
        return about + _SENTENCES[self.kind].format(entry=self.entry, stored=self.stored, computed=self.computed)


class Report(msgspec.Struct):
    """What was looked at, and what was wrong: nothing, if `faults` is empty."""

    workspaces: int = 0
    usages: int = 0
    payments: int = 0
    faults: list[Fault] = msgspec.field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything agrees."""
        return not self.faults


def verify(conn: Connection[Any], progress: Callable[[Report], None] | None = None) -> Report:
    """Recompute everything in one snapshot, in runs of workspaces; bookings go on meanwhile.

    Args:
        conn: A connection outside a transaction, in autocommit mode.
        progress: Called after each run of workspaces with the report so far.
    """
    report = Report()
    before = conn.isolation_level, conn.read_only
    conn.isolation_level, conn.read_only = IsolationLevel.REPEATABLE_READ, True
    try:
        with conn.transaction():
            after = ""
            while run := conn.execute(_NEXT, [after, WORKSPACES_PER_CHUNK]).fetchall():
                upto = _end_of_chunk(run)
                _check(conn, after, upto, report)
                after = upto
                if progress is not None:
                    progress(report)
            report.faults += [Fault(row[0], "orphan") for row in conn.execute(_ORPHANS)]
            row = conn.execute(_KEYS).fetchone()
            if row and row[0] != row[1]:
                report.faults.append(Fault("", "keys", stored=str(row[0]), computed=str(row[1])))
    finally:
        conn.isolation_level, conn.read_only = before
    return report


def _end_of_chunk(run: list[tuple[str, int]]) -> str:
    """Last workspace of a run whose logs together stay within what one sort should hold."""
    total = 0
    for index, (workspace_id, entries) in enumerate(run):
        total += entries
        if total > ENTRIES_PER_CHUNK and index:
            return run[index - 1][0]
        if total > ENTRIES_PER_CHUNK:
            return workspace_id
    return run[-1][0]


def _check(conn: Connection[Any], after: str, upto: str, report: Report) -> None:
    for workspace_id, usages, payments, kind, entry, stored, computed in conn.execute(
        _CHUNK, {"after": after, "upto": upto}
    ):
        report.workspaces += 1
        report.usages += usages
        report.payments += payments
        if kind is not None:
            report.faults.append(Fault(workspace_id, kind, entry, stored, computed))
