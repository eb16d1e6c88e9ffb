"""Usages that are booked, under another book: what repricing and simulation look at.

A usage costs what it was booked at, or what the newest repricing made of it. Nothing here writes.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import msgspec
from psycopg import Connection

from taximeter_db.errors import NotFoundError
from taximeter_db.money import from_numeric_text, status_of
from taximeter_worker.pricing import OutOfRange, PriceBook, PriceMissing
from taximeter_worker.pricing.book import microseconds

CHUNK_USAGES = 2_000
CLOCKS_APART = dt.timedelta(days=1)
"""How much earlier than its own time a usage may have been booked: what lets whole partitions be left out."""

_WANTED = """u.occurred_at >= %(since)s AND (%(until)s::timestamptz IS NULL OR u.occurred_at < %(until)s)
  AND (%(tool)s::text IS NULL OR u.tool = %(tool)s) AND abs(u.price_version) < %(below)s"""
_WORKSPACES = f"""
SELECT u.workspace_id, min(u.seq), count(*) FROM taximeter.usages AS u
WHERE u.recorded_at >= %(floor)s AND {_WANTED}
  AND (%(workspace)s::text IS NULL OR u.workspace_id = %(workspace)s)
GROUP BY u.workspace_id ORDER BY u.workspace_id
"""  # noqa: S608  (fixed text)
_CHUNK = f"""
SELECT u.seq, u.entry, u.recorded_at, u.occurred_at, u.cost::text, u.balance_after::text, u.tool, u.provider, u.model,
       u.quantities::text, {_WANTED} AS wanted,
       (SELECT r.new_cost::text FROM taximeter.repriced_usages AS r
        WHERE r.workspace_id = u.workspace_id AND r.seq = u.seq ORDER BY r.repricing DESC LIMIT 1)
FROM taximeter.usages AS u
WHERE u.workspace_id = %(workspace)s AND u.seq > %(after)s AND u.recorded_at >= %(floor)s
  AND (%(all)s OR ({_WANTED}))
ORDER BY u.seq LIMIT {CHUNK_USAGES}
"""  # noqa: S608  (fixed text)
_PAYMENTS = """
SELECT p.entry, p.balance_after::text, p.amount::text, p.recorded_at, w.payment_id IS NOT NULL
FROM taximeter.payments AS p LEFT JOIN taximeter.repriced_workspaces AS w USING (workspace_id, payment_id)
WHERE p.workspace_id = %s AND p.entry > %s ORDER BY p.entry
"""
_LIMITS = """
SELECT balance::text, minimum_balance::text, low_balance_threshold::text FROM taximeter.workspaces
WHERE workspace_id = %s
"""


class Selection(msgspec.Struct, frozen=True):
    """Which usages: by their own time, from `since` until before `until`; of one tool or workspace, or of all."""

    since: dt.datetime
    until: dt.datetime | None = None
    tool: str | None = None
    workspace: str | None = None


class Rated(msgspec.Struct, gc=False):
    """One usage: as booked (`cost`), as it stands (`old`), and under the other book (`new`; None: it has no price)."""

    seq: int
    entry: int
    recorded_at: dt.datetime
    tool: str
    balance_after: int
    wanted: bool
    cost: int
    old: int
    new: int | None


class Change(msgspec.Struct):
    """What another book makes of one workspace's usages; amounts in picodollars.

    `usages` counts those whose cost differs, `same` those whose cost does not, `unpriced` those without a price there.
    `status` is now's and the one after an adjustment. Where the workspace would have been enabled and was not, or the
    other way round, `apart_since` says since when first, `apart` after how many entries of its log, and `was_enabled`
    what it was then; judged by the workspace's present minimum balance.
    """

    workspace_id: str
    usages: int = 0
    same: int = 0
    unpriced: int = 0
    old: int = 0
    new: int = 0
    status_now: str = ""
    status_then: str = ""
    flips: bool = False
    apart: int = 0
    apart_since: dt.datetime | None = None
    was_enabled: bool = True

    @property
    def difference(self) -> int:
        """What the adjustment would give back (positive) or charge (negative)."""
        return self.old - self.new


def workspaces(conn: Connection[Any], selection: Selection, below: int) -> list[tuple[str, int, int]]:
    """Workspaces with usages of the selection that were priced by a revision below `below`: id, first seq, how many."""
    return conn.execute(_WORKSPACES, _values(selection, below)).fetchall()


def _values(selection: Selection, below: int) -> dict[str, Any]:
    return {**msgspec.structs.asdict(selection), "below": below, "floor": selection.since - CLOCKS_APART}


def usages(
    conn: Connection[Any],
    selection: Selection,
    book: PriceBook,
    workspace_id: str,
    *,
    below: int,
    first: int = 1,
    everything: bool = False,
) -> Iterator[Rated]:
    """A workspace's usages of the selection in their order; with `everything`, all the others from `first` on too."""
    values = {**_values(selection, below), "workspace": workspace_id, "after": first - 1, "all": everything}
    if everything:
        values["floor"] = dt.datetime(1, 1, 2, tzinfo=dt.UTC)
    while rows := conn.execute(_CHUNK, values).fetchall():
        for row in rows:
            yield _rated(row, book, workspace_id)
        values["after"] = rows[-1][0]


def _rated(row: tuple[Any, ...], book: PriceBook, workspace_id: str) -> Rated:
    seq, entry, recorded_at, occurred_at, cost_text, balance, tool, provider, model, quantities, wanted, repriced = row
    cost = from_numeric_text(cost_text)
    old = cost if repriced is None else from_numeric_text(repriced)
    new: int | None = old
    if wanted:
        units = json.loads(quantities, parse_float=Decimal)
        try:
            new = book.price(tool, provider, model, units, microseconds(occurred_at), workspace_id)
        except (PriceMissing, OutOfRange):
            new = None
    return Rated(seq, entry, recorded_at, tool, from_numeric_text(balance), wanted, cost, old, new)


def count(change: Change, usage: Rated) -> bool:
    """Add a usage of the selection to a change; returns whether its cost differs."""
    if usage.new is None:
        change.unpriced += 1
    elif usage.new == usage.old:
        change.same += 1
    else:
        change.usages += 1
        change.old += usage.old
        change.new += usage.new
        return True
    return False


def preview(
    conn: Connection[Any],
    selection: Selection,
    book: PriceBook,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Iterator[Change]:
    """What repricing would do, workspace by workspace: those alone in which something differs or has no price.

    For a usage repriced before, the difference is to what it costs now.
    """
    found = workspaces(conn, selection, book.revision)
    for done, (workspace_id, first, _) in enumerate(found, 1):
        change = _walk(conn, selection, book, workspace_id, first)
        progress(done, len(found))
        if change.usages or change.unpriced:
            yield change


def _walk(conn: Connection[Any], selection: Selection, book: PriceBook, workspace_id: str, first: int) -> Change:
    """Go through a workspace's log beside the log that the other book would have made.

    That one has no adjustments of repricings in it, and every usage at its final cost from the beginning.
    """
    balance, minimum, low = _limits(conn, workspace_id)
    row = conn.execute(
        "SELECT min(seq) FROM taximeter.repriced_usages WHERE workspace_id = %s", [workspace_id]
    ).fetchone()
    first = min(first, row[0]) if row and row[0] is not None else first
    change = Change(workspace_id)
    payments: list[tuple[int, str, str, dt.datetime, bool]] | None = None
    shift = 0

    def compare(actual: int, at: dt.datetime) -> None:
        if (actual >= minimum) != (actual + shift >= minimum):
            change.apart += 1
            if change.apart_since is None:
                change.apart_since, change.was_enabled = at, actual >= minimum

    def pay(until: int | None) -> None:
        nonlocal shift
        while payments and (until is None or payments[0][0] < until):
            _, after, amount, at, ours = payments.pop(0)
            shift -= from_numeric_text(amount) if ours else 0
            compare(from_numeric_text(after), at)

    for usage in usages(conn, selection, book, workspace_id, below=book.revision, first=first, everything=True):
        if payments is None:
            payments = conn.execute(_PAYMENTS, [workspace_id, usage.entry]).fetchall()
        pay(usage.entry)
        if usage.wanted:
            count(change, usage)
        shift += usage.cost - (usage.old if usage.new is None else usage.new)
        compare(usage.balance_after, usage.recorded_at)
    pay(None)
    change.status_now = status_of(balance, minimum, low)
    change.status_then = status_of(balance + change.difference, minimum, low)
    change.flips = (balance >= minimum) != (balance + change.difference >= minimum)
    return change


def _limits(conn: Connection[Any], workspace_id: str) -> tuple[int, int, int]:
    row = conn.execute(_LIMITS, [workspace_id]).fetchone()
    if row is None:
        raise NotFoundError(f"There is no workspace {workspace_id}.")
    balance, minimum, low = map(from_numeric_text, row)
    return balance, minimum, low


class Simulated(msgspec.Struct):
    """What another book makes of one tool's usages in one workspace; picodollars."""

    workspace_id: str
    tool: str
    usages: int = 0
    unpriced: int = 0
    old: int = 0
    new: int = 0


def simulate(
    conn: Connection[Any],
    selection: Selection,
    book: PriceBook,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Iterator[Simulated]:
    """What the selection would have cost under `book`, by workspace and tool. `old` and `new` leave out the unpriced."""
    everything = 2**62
    found = workspaces(conn, selection, everything)
    for done, (workspace_id, first, _) in enumerate(found, 1):
        tools: dict[str, Simulated] = {}
        for usage in usages(conn, selection, book, workspace_id, below=everything, first=first):
            line = tools.setdefault(usage.tool, Simulated(workspace_id, usage.tool))
            line.usages += 1
            if usage.new is None:
                line.unpriced += 1
            else:
                line.old += usage.old
                line.new += usage.new
        progress(done, len(found))
        yield from (tools[tool] for tool in sorted(tools))
