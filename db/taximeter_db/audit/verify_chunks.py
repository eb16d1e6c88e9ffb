"""How verify cuts the ledger: into runs of small workspaces and stretches of large ones, a sort's worth each."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from psycopg import Connection
from sqlalchemy import select

from taximeter_db import money
from taximeter_db.core import Statement
from taximeter_db.ledger import columns
from taximeter_db.models.ledger import Workspace
from taximeter_db.sql import statement, statements

ENTRIES_PER_CHUNK = 100_000
WORKSPACES_PER_CHUNK = 20_000
FIRST_ID: Final = ""
LAST_ID: Final = "\U0010ffff"
"""Beyond every workspace id, whoever wrote it: ids sort by their bytes."""
_JUST_AFTER: Final = "\x01"
_ALL: Final = 2**63 - 1

_CHUNK = statement("verify_chunk")
_FILLING = {
    "chained": columns.listed(columns.CHAINED, "u"),
    "chained_unlabelled": columns.listed(tuple(name for name in columns.CHAINED if name not in columns.LABELS), "u"),
    "unlabelled": " AND ".join(f"u.{name} IS NULL" for name in columns.LABELS),
    "looks_own": statements("verify_keys")["looks_own"],
}
_SOURCES = statements("verify_sources")
_STATES = Statement(
    select(
        Workspace.workspace_id,
        Workspace.usage_count,
        Workspace.payment_count,
        Workspace.usage_cost,
        Workspace.payment_total,
        Workspace.balance,
        Workspace.chain,
    ).order_by(Workspace.workspace_id)
)
_COUNTS = Statement(
    select(Workspace.workspace_id, Workspace.usage_count, Workspace.payment_count).order_by(Workspace.workspace_id)
)


class Start(msgspec.Struct, frozen=True):
    """Where a walk begins in a workspace: numbers and totals (picodollars) so far, and the chain's link there."""

    workspace_id: str
    usages: int
    payments: int
    cost: int
    paid: int
    chain: bytes

    @property
    def balance(self) -> int:
        """Picodollars."""
        return self.paid - self.cost


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """Workspaces from `first` to before `end`, whole; or a stretch of one by the numbers of its entries; or `since`."""

    entries: int
    workspaces: int
    first: str = FIRST_ID
    end: str = LAST_ID
    starts: tuple[Start, ...] = ()
    seq_upto: int = _ALL
    payment_upto: int = _ALL
    whole: bool = True
    since: bool = False

    def statement(self) -> str:
        """Its query."""
        sources = {name: self.source(name) for name in ("usages", "payments", "workspaces")}
        return _CHUNK.format(**_FILLING, **sources)

    def source(self, rows: str) -> str:
        """The FROM and WHERE of its rows: ``usages`` (as u), ``payments`` (as p) or ``workspaces``."""
        return _SOURCES[f"{'since' if self.since else 'range'}_{rows}"]

    def values(self) -> dict[str, Any]:
        """The query's parameters."""
        starts = self.starts
        begun = starts[0] if starts and not self.since else None
        return {
            "first": self.first,
            "end": self.end,
            "seq_after": begun.usages if begun else 0,
            "seq_upto": self.seq_upto,
            "payment_after": begun.payments if begun else 0,
            "payment_upto": self.payment_upto,
            "ids": [start.workspace_id for start in starts],
            "start_usages": [start.usages for start in starts],
            "start_payments": [start.payments for start in starts],
            "start_costs": [money.numeric_text(start.cost) for start in starts],
            "start_paids": [money.numeric_text(start.paid) for start in starts],
            "start_chains": [start.chain for start in starts],
            "whole": self.whole,
        }


def cut(conn: Connection[Any]) -> Iterator[Chunk]:
    """Cut the whole ledger. The chunks leave out no row, whichever workspace it names."""
    first, entries, workspaces = FIRST_ID, 0, 0
    for workspace_id, usages, payments in _COUNTS.all(conn):
        more = usages + payments
        if workspaces and (entries + more > ENTRIES_PER_CHUNK or workspaces >= WORKSPACES_PER_CHUNK):
            yield Chunk(first=first, end=workspace_id, entries=entries, workspaces=workspaces)
            first, entries, workspaces = workspace_id, 0, 0
        if usages > 2 * ENTRIES_PER_CHUNK:
            if first != workspace_id:
                yield Chunk(first=first, end=workspace_id, entries=entries, workspaces=workspaces)
            yield from _stretches(conn, workspace_id, usages, payments)
            first, entries, workspaces = workspace_id + _JUST_AFTER, 0, 0
        else:
            entries += more
            workspaces += 1
    yield Chunk(first=first, entries=entries, workspaces=workspaces)


def _stretches(conn: Connection[Any], workspace_id: str, usages: int, payments: int) -> Iterator[Chunk]:
    """Cut one large workspace behind rows that bear a link; each stretch begins at what the one before it checks."""
    whole = Chunk(
        first=workspace_id, end=workspace_id + _JUST_AFTER, entries=usages + payments, workspaces=1, whole=False
    )
    starts: tuple[Start, ...] = ()
    so_far, target = 0, ENTRIES_PER_CHUNK
    while target < usages and (row := _boundary(conn, workspace_id, target, usages)):
        seq, paid, balance, link = row
        yield msgspec.structs.replace(
            whole, entries=seq + paid - so_far, workspaces=0, starts=starts, seq_upto=seq, payment_upto=paid
        )
        # only the balance is known here; what it is made of does not matter to a stretch
        starts = (Start(workspace_id, seq, paid, 0, money.to_pico(balance), link),)
        so_far, target = seq + paid, seq + ENTRIES_PER_CHUNK
    yield msgspec.structs.replace(whole, entries=usages + payments - so_far, starts=starts)


def _boundary(conn: Connection[Any], workspace_id: str, target: int, usages: int) -> tuple[Any, ...] | None:
    values = {"workspace_id": workspace_id, "target": target, "usages": usages}
    return conn.execute(_SOURCES["boundary"], values).fetchone()


def detached(conn: Connection[Any]) -> list[tuple[dt.datetime, dt.datetime]]:
    """The slices of the log, from and until, whose partitions are not attached: their rows are not in the log."""
    return conn.execute(_SOURCES["detached"]).fetchall()


def plan(conn: Connection[Any]) -> None:
    """Let the transaction plan for large reads."""
    conn.execute(_SOURCES["planning"], prepare=False)


def cut_since(conn: Connection[Any], known: Mapping[str, Start]) -> Iterator[Chunk]:
    """Cut what was booked after these starts; workspaces that have not moved at all are left out."""
    starts: list[Start] = []
    entries = 0
    for workspace_id, usages, payments, cost, paid, balance, chain in _STATES.all(conn):
        now = Start(workspace_id, usages, payments, cost, paid, bytes(chain))
        start = known.get(workspace_id, Start(workspace_id, 0, 0, 0, 0, b""))
        if now == start and balance == now.balance:
            continue
        more = max(0, usages + payments - start.usages - start.payments)
        if starts and (entries + more > ENTRIES_PER_CHUNK or len(starts) >= WORKSPACES_PER_CHUNK):
            yield Chunk(entries=entries, workspaces=len(starts), starts=tuple(starts), since=True)
            starts, entries = [], 0
        starts.append(start)
        entries += more
    if starts:
        yield Chunk(entries=entries, workspaces=len(starts), starts=tuple(starts), since=True)
