"""Usages that are booked, under another book: what repricing and simulation look at.

A usage costs what it was booked at, or what the newest repricing made of it. Nothing here writes.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
from psycopg import Connection

from taximeter.errors import OutOfRangeError, PriceMissingError
from taximeter.pricing.price_book import PriceBook
from taximeter.pricing.price_index import microseconds
from taximeter_db.errors import NotFoundError
from taximeter_db.money import from_numeric_text, status_of
from taximeter_db.sql import statement

CHUNK_USAGES = 2_000
_EVER = dt.datetime.min.replace(tzinfo=dt.UTC)
CLOCKS_APART = dt.timedelta(days=1)
_WORKSPACES = statement("recost_workspaces")
_USAGES = statement("recost_usages")
_PAYMENTS = statement("recost_payments")
_LIMITS = statement("read_balance_and_limits")
_FIRST_REPRICED = statement("first_repriced")
_BOOKED_SINCE = statement("booked_since")


class Selection(msgspec.Struct, frozen=True):
    """Which usages: by their own time, from `since` until before `until`; of one tool or workspace, or of all.

    `ahead` is by how much a usage may have been booked before its own time, which lets whole partitions be left out: as much as
    the worker's setting `future_seconds_max` allows, and never less than a day.
    """

    since: dt.datetime
    until: dt.datetime | None = None
    tool: str | None = None
    workspace: str | None = None
    ahead: dt.timedelta = CLOCKS_APART


class Candidate(NamedTuple):
    """A workspace with usages of a selection: the number of the first one, and how many there are."""

    workspace_id: str
    first: int
    usages: int


class Recosted(msgspec.Struct, gc=False):
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


def candidates(conn: Connection[Any], selection: Selection, below: int) -> list[Candidate]:
    """Workspaces with usages of the selection that were priced by a revision below `below`."""
    return [Candidate(*row) for row in conn.execute(_WORKSPACES, _values(selection, below))]


def _floor(selection: Selection) -> dt.datetime:
    """A moment before which nothing of the selection was booked; the year 1 has none before it."""
    return _EVER if selection.since - _EVER < selection.ahead else selection.since - selection.ahead


def booked_since(conn: Connection[Any], selection: Selection, below: int, since: dt.datetime) -> int:
    """How many usages of the selection were booked since then under a revision below `below`."""
    row = conn.execute(_BOOKED_SINCE, {**_values(selection, below), "booked_since": since}).fetchone()
    return int(row[0]) if row else 0


def _values(selection: Selection, below: int) -> dict[str, Any]:
    return {**msgspec.structs.asdict(selection), "below": below, "floor": _floor(selection)}


def usages(
    conn: Connection[Any],
    selection: Selection,
    book: PriceBook,
    candidate: Candidate,
    *,
    below: int,
    everything: bool = False,
) -> Iterator[Recosted]:
    """The usages of a candidate that are of the selection, in their order; with `everything`, all others of its log too."""
    values = {
        **_values(selection, below),
        "workspace": candidate.workspace_id,
        "after": candidate.first - 1,
        "all": everything,
        "limit": CHUNK_USAGES,
    }
    if everything:
        values["floor"] = _EVER
    while rows := conn.execute(_USAGES, values).fetchall():
        for row in rows:
            yield _recost(row, book, candidate.workspace_id)
        values["after"] = rows[-1][0]


def _recost(row: tuple[Any, ...], book: PriceBook, workspace_id: str) -> Recosted:
    seq, entry, recorded_at, occurred_at, cost_text, balance, tool, provider, model, quantities, wanted, repriced = row
    cost = from_numeric_text(cost_text)
    old = cost if repriced is None else from_numeric_text(repriced)
    new: int | None = old
    if wanted:
        units = json.loads(quantities, parse_float=Decimal)
        try:
            new = book.price(tool, provider, model, units, microseconds(occurred_at), workspace_id)
        except (PriceMissingError, OutOfRangeError):
            new = None
    return Recosted(seq, entry, recorded_at, tool, from_numeric_text(balance), wanted, cost, old, new)


def count(change: Change, usage: Recosted) -> bool:
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
    found = candidates(conn, selection, book.revision)
    for done, candidate in enumerate(found, 1):
        change = _walk(conn, selection, book, candidate)
        progress(done, len(found))
        if change.usages or change.unpriced:
            yield change


def _walk(conn: Connection[Any], selection: Selection, book: PriceBook, candidate: Candidate) -> Change:
    """Go through a workspace's log beside the log that the other book would have made.

    That one has no adjustments of repricings in it, and every usage at its final cost from the beginning.
    """
    workspace_id = candidate.workspace_id
    balance, minimum, low = _limits(conn, workspace_id)
    row = conn.execute(_FIRST_REPRICED, [workspace_id]).fetchone()
    if row and row[0] is not None:
        candidate = candidate._replace(first=min(candidate.first, row[0]))
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

    for usage in usages(conn, selection, book, candidate, below=book.revision, everything=True):
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
    found = candidates(conn, selection, everything)
    for done, candidate in enumerate(found, 1):
        tools: dict[str, Simulated] = {}
        for usage in usages(conn, selection, book, candidate, below=everything):
            line = tools.setdefault(usage.tool, Simulated(candidate.workspace_id, usage.tool))
            line.usages += 1
            if usage.new is None:
                line.unpriced += 1
            else:
                line.old += usage.old
                line.new += usage.new
        progress(done, len(found))
        yield from (tools[tool] for tool in sorted(tools))
