"""How verify cuts the ledger: into runs of small workspaces and stretches of large ones, a sort's worth each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from psycopg import Connection

from taximeter_db import money
from taximeter_db.sql import statement

ENTRIES_PER_CHUNK = 100_000
WORKSPACES_PER_CHUNK = 20_000
FIRST_ID: Final = ""
LAST_ID: Final = "\U0010ffff"
"""Beyond every workspace id, whoever wrote it: ids sort by their bytes."""
_JUST_AFTER: Final = "\x01"
_ALL: Final = 2**63 - 1
_NOTHING: Final = "0.000000000000"

_CHUNK = statement("verify_chunk")
_RANGE = {
    "usages": "taximeter.usages AS u WHERE u.workspace_id >= %(first)s AND u.workspace_id < %(end)s"
    " AND u.seq > %(seq_after)s AND u.seq <= %(seq_upto)s",
    "payments": "taximeter.payments AS p WHERE p.workspace_id >= %(first)s AND p.workspace_id < %(end)s"
    " AND p.seq > %(payment_after)s AND p.seq <= %(payment_upto)s",
    "workspaces": "taximeter.workspaces WHERE workspace_id >= %(first)s AND workspace_id < %(end)s",
}
_SINCE = {
    "usages": "starts AS s CROSS JOIN LATERAL (SELECT * FROM taximeter.usages AS l"
    " WHERE l.workspace_id = s.workspace_id AND l.seq > s.usages) AS u",
    "payments": "starts AS s CROSS JOIN LATERAL (SELECT * FROM taximeter.payments AS l"
    " WHERE l.workspace_id = s.workspace_id AND l.seq > s.payments) AS p",
    "workspaces": "taximeter.workspaces WHERE workspace_id = ANY(%(ids)s)",
}
# A link ends a batch: only there can the chain be taken up again.
_BOUNDARY = """
SELECT seq, entry - seq, balance_after::text, link FROM taximeter.usages
WHERE workspace_id = %s AND seq >= %s AND seq < %s AND link IS NOT NULL ORDER BY seq LIMIT 1
"""
_STATES = """
SELECT workspace_id, usage_count, payment_count, usage_cost::text, payment_total::text, balance::text, chain
FROM taximeter.workspaces ORDER BY workspace_id
"""
_WORKSPACES = "SELECT workspace_id, usage_count, payment_count FROM taximeter.workspaces ORDER BY workspace_id"


class Start(msgspec.Struct, frozen=True):
    """Where a walk begins in a workspace: numbers and totals (decimal text) so far, and the chain's link there."""

    workspace_id: str
    usages: int
    payments: int
    cost: str
    paid: str
    chain: bytes

    @property
    def balance(self) -> str:
        """Decimal text."""
        return money.numeric_text(money.from_numeric_text(self.paid) - money.from_numeric_text(self.cost))


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
        return _CHUNK.format_map(_SINCE if self.since else _RANGE)

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
            "start_costs": [start.cost for start in starts],
            "start_paids": [start.paid for start in starts],
            "start_chains": [start.chain for start in starts],
            "whole": self.whole,
        }


def cut(conn: Connection[Any]) -> Iterator[Chunk]:
    """Cut the whole ledger. The chunks leave out no row, whichever workspace it names."""
    first, entries, workspaces = FIRST_ID, 0, 0
    for workspace_id, usages, payments in conn.execute(_WORKSPACES).fetchall():
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
    while target < usages and (row := conn.execute(_BOUNDARY, [workspace_id, target, usages]).fetchone()):
        seq, paid, balance, link = row
        yield msgspec.structs.replace(
            whole, entries=seq + paid - so_far, workspaces=0, starts=starts, seq_upto=seq, payment_upto=paid
        )
        # only the balance is known here; what it is made of does not matter to a stretch
        starts = (Start(workspace_id, seq, paid, _NOTHING, balance, link),)
        so_far, target = seq + paid, seq + ENTRIES_PER_CHUNK
    yield msgspec.structs.replace(whole, entries=usages + payments - so_far, starts=starts)


def cut_since(conn: Connection[Any], known: Mapping[str, Start]) -> Iterator[Chunk]:
    """Cut what was booked after these starts; workspaces that have not moved at all are left out."""
    starts: list[Start] = []
    entries = 0
    for workspace_id, usages, payments, cost, paid, balance, chain in conn.execute(_STATES).fetchall():
        now = Start(workspace_id, usages, payments, cost, paid, bytes(chain))
        start = known.get(workspace_id, Start(workspace_id, 0, 0, _NOTHING, _NOTHING, b""))
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
