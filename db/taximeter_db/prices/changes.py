"""What may be added to the price book, and from when: setting one price, importing many.

The rules, in one place:

- Nothing is ever changed. A later `effective_from` supersedes an earlier one from then on.
- The same target, unit and `effective_from` a second time is an overlap, and refused, unless it is said to be a
  correction (`correct`): then the later revision counts, for what is booked or repriced from then on.
- A price that was given an end holds until then: a start before it, or an end after another one's start, is an overlap.
- A moment in the past at which a price of the same target and unit was already in force may only be given a new one
  by whoever says so (`backdated`): what was booked since then would have cost something else.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import msgspec
from psycopg import Connection

from taximeter_db.prices.store import (
    BackdatedPriceError,
    Entry,
    Price,
    PriceError,
    PriceOverlapError,
    Target,
    append,
    changing,
    check,
    current_revision,
    read_aliases,
    read_entries,
    read_history,
    same_value,
    since,
    utc_text,
)

AnyPrice = TypeVar("AnyPrice", bound=Price)
EVER = dt.datetime.min.replace(tzinfo=dt.UTC)


class PriceSet(msgspec.Struct, frozen=True):
    """What `set_price` did: the price as booked, the one it follows, and the book's revision.

    `changed` is False where the price was already in force and nothing needed to be written.
    """

    price: Price
    previous: Price | None
    revision: int
    changed: bool


class Refusal(msgspec.Struct, frozen=True):
    """A price that an import did not take, the one that stands in its way, and why."""

    price: Price
    existing: Price
    why: str


class ImportPlan(msgspec.Struct):
    """What an import does, or would do: `changed` pairs hold the price in force and the one that follows it."""

    added: list[Price] = []
    changed: list[tuple[Price, Price]] = []
    unchanged: int = 0
    refused: list[Refusal] = []
    aliases_changed: bool = False
    revision: int = 0

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.added or self.changed or self.aliases_changed)


def in_force(history: Sequence[AnyPrice], at: dt.datetime) -> AnyPrice | None:
    """The price of one target and unit that holds at `at`: the newest start, and of equal ones the newest revision."""
    found: AnyPrice | None = None
    for price in history:
        if (price.effective_from is None or price.effective_from <= at) and (
            found is None or _rank(price) >= _rank(found)
        ):
            found = price
    ended = found is not None and found.effective_until is not None and found.effective_until <= at
    return None if ended else found


def versions(history: Sequence[AnyPrice]) -> list[AnyPrice]:
    """The versions that count, by their start: of several from the same moment, the newest revision."""
    by_start = {price.effective_from: price for price in sorted(history, key=_rank)}
    return list(by_start.values())


def _rank(price: Price) -> tuple[dt.datetime, int]:
    return price.effective_from or EVER, price.revision if isinstance(price, Entry) else 0


def set_price(
    conn: Connection[Any],
    price: Price,
    *,
    start: dt.datetime | None = None,
    ever: bool = False,
    backdated: bool = False,
    correct: bool = False,
) -> PriceSet:
    """Add one price to the book, as a revision of its own.

    Args:
        conn: A connection with no transaction open.
        price: What to charge; its own `effective_from` is ignored in favour of `start`, its `effective_until` counts.
        start: From when on. None: since the beginning of time if no price of this target and unit has begun yet (events
            that waited for it in quarantine are then booked), otherwise from now on; with `correct`, from where the
            price in force begins.
        ever: From the beginning of time, whatever there is.
        backdated: Say that a price already in force may be superseded from a moment in the past.
        correct: Replace the price that begins at the very same moment.

    Raises:
        PriceError: The price itself cannot be accepted, or there is none to correct.
        PriceOverlapError: Another price holds at a time for which this one is meant.
        BackdatedPriceError: `start` is in the past, a price was in force then, and `backdated` was not given.
    """
    check(msgspec.structs.replace(price, effective_from=start))
    with changing(conn) as now:
        history = read_history(conn, price.target, price.unit)
        present = in_force(history, now)
        if start is None and not ever:
            if present is not None and _same(present, price):
                return PriceSet(present, present, current_revision(conn), changed=False)
            if correct:
                start = None if present is None else present.effective_from
            elif any(other.effective_from is None or other.effective_from <= now for other in history):
                start = now
        price = check(msgspec.structs.replace(price, effective_from=start))
        twin = next((other for other in versions(history) if other.effective_from == start), None)
        if correct and twin is not None and _same(twin, price):
            return PriceSet(twin, twin, current_revision(conn), changed=False)
        refusal = refuse(price, history, now, backdated=backdated, correct=correct)
        if refusal is not None:
            raise refusal
        previous = twin if start is None else in_force(history, start)
        revision = append(conn, [price], {}, "correction" if correct else "set")
    return PriceSet(price, previous, revision, changed=True)


def _same(one: Price, other: Price) -> bool:
    return same_value(one, other) and one.effective_until == other.effective_until


def refuse(
    price: Price, history: Sequence[Price], now: dt.datetime, *, backdated: bool, correct: bool = False
) -> PriceError | None:
    """Say why `price` may not join the prices of its target and unit, with both versions named, or None."""
    name = f"{price.target}, {price.unit}"
    start, end = price.effective_from, price.effective_until
    twin = None
    for other in versions(history):
        if other.effective_from == start:
            twin = other
            if not correct:
                return PriceOverlapError(
                    f"Overlap on {name}: the book already has {other}; the new price is {price}. Two prices cannot begin "
                    "at the same moment: choose another start with --from, or say --correct to replace that one."
                )
            continue
        first, second = (other, price) if _start(other) < _start(price) else (price, other)
        # An end that was given is a promise; one that was not comes with the next start.
        if first.effective_until is not None and _start(second) < first.effective_until:
            return PriceOverlapError(
                f"Overlap on {name}: the book already has {other}; the new price is {price}. From "
                f"{utc_text(_start(second))} until {utc_text(min(first.effective_until, end or first.effective_until))} "
                "both would hold: choose other times with --from and --until, or shorten the earlier one with --correct."
            )
    if correct:
        if twin is None:
            return PriceError(
                f"There is nothing to correct on {name}: no price begins {since(start).removeprefix('from ')}."
            )
        return None
    if backdated or start is None or start >= now:
        return None
    standing = in_force(history, start)
    if standing is None:
        return None
    return BackdatedPriceError(
        f"Back-dated price on {name}: at {utc_text(start)} the book already had {standing}; the new price is {price}. "
        "Usages booked since then keep their cost. Leave out --from to change the price from now on, or say --backdated; "
        "then `taximeter prices reprice` adjusts what was booked."
    )


def _start(price: Price) -> dt.datetime:
    return price.effective_from or EVER


class ImportTerms(msgspec.Struct, frozen=True):
    """Where imported prices are from and what they may change.

    Attributes:
        reason: Kept with the revision.
        catalogue: Name of a catalogue, whose entries' `source` begin with it. What it says today then follows its own
            earlier prices from now on, never from the past, and a price from another source is left alone (refused).
            None: the prices are a file of the operator's, taken as they are or, if one is refused, not at all.
        backdated: As in `set_price`, for a file.
        correct: Likewise: prices that begin where the book's do, and differ, replace them.
    """

    reason: str
    catalogue: str | None = None
    backdated: bool = False
    correct: bool = False


def import_prices(
    conn: Connection[Any],
    prices: Sequence[Price],
    aliases: Mapping[str, Mapping[str, Any]],
    terms: ImportTerms,
    *,
    dry_run: bool = False,
    only_if_empty: bool = False,
) -> ImportPlan:
    """Add many prices to the book, as one revision; adding the same again adds nothing.

    Args:
        conn: A connection with no transaction open.
        prices: With their own `effective_from`; several of a target and unit make its history.
        aliases: Alias rules by catalogue.
        terms: Where they are from and what they may change.
        dry_run: Only say what would happen.
        only_if_empty: Do nothing if the book has any revision.

    Raises:
        PriceError: One of the prices could never be accepted, or the file itself holds an overlap.
    """
    for price in prices:
        check(price)
    with changing(conn) as now:
        revision = current_revision(conn)
        if only_if_empty and revision:
            return ImportPlan(revision=revision)
        plan = ImportPlan(revision=revision)
        standing = _by_unit(read_entries(conn, revision))
        for key, wanted in _by_unit(prices).items():
            _refuse_repeats(wanted)
            history = standing.get(key, [])
            if not history:
                plan.added += wanted
            elif terms.catalogue is None:
                _plan_file(plan, wanted, history, now, terms)
            else:
                _plan_catalogue(plan, wanted, history, now, terms.catalogue)
        known = read_aliases(conn, revision)
        fresh = {name: rules for name, rules in aliases.items() if known.get(name) != rules}
        plan.aliases_changed = bool(fresh)
        blocked = terms.catalogue is None and bool(plan.refused)
        if not (dry_run or blocked or plan.empty):
            plan.revision = append(conn, [*plan.added, *(new for _, new in plan.changed)], fresh, terms.reason)
    return plan


def _by_unit(prices: Sequence[AnyPrice]) -> dict[tuple[Target, str], list[AnyPrice]]:
    units: dict[tuple[Target, str], list[AnyPrice]] = defaultdict(list)
    for price in prices:
        units[price.target, price.unit].append(price)
    return units


def _refuse_repeats(wanted: Sequence[Price]) -> None:
    starts: dict[dt.datetime | None, Price] = {}
    for price in wanted:
        other = starts.setdefault(price.effective_from, price)
        if other is not price:
            raise PriceOverlapError(f"Overlap within the import on {price.target}, {price.unit}: {other}, and {price}.")
    for one, other in pairwise(sorted(wanted, key=_start)):
        if one.effective_until is not None and _start(other) < one.effective_until:
            raise PriceOverlapError(f"Overlap within the import on {one.target}, {one.unit}: {one}, and {other}.")


def _plan_file(
    plan: ImportPlan,
    wanted: Sequence[Price],
    history: Sequence[Entry],
    now: dt.datetime,
    terms: ImportTerms,
) -> None:
    """An operator's file means what it says: identical entries are known, everything else joins or is refused."""
    for price in wanted:
        twin = next((other for other in versions(history) if other.effective_from == price.effective_from), None)
        if twin is not None and _same(twin, price):
            plan.unchanged += 1
            continue
        refusal = refuse(price, history, now, backdated=terms.backdated, correct=terms.correct and twin is not None)
        previous = twin or in_force(history, price.effective_from or EVER)
        if refusal is not None:
            plan.refused.append(Refusal(price, twin or previous or history[0], str(refusal)))
        elif previous is None:
            plan.added.append(price)
        else:
            plan.changed.append((previous, price))


def _plan_catalogue(
    plan: ImportPlan, wanted: Sequence[Price], history: Sequence[Entry], now: dt.datetime, catalogue: str
) -> None:
    """A catalogue's correction of the past does not rewrite ours: it takes effect now, the future when it comes."""
    newest = history[-1] if history else None
    theirs = in_force(wanted, now)
    ours = in_force(history, now)
    if newest is not None and not newest.source.startswith(catalogue):
        if theirs is not None and not same_value(theirs, ours or newest):
            plan.refused.append(Refusal(theirs, newest, f"a price from another source stands: {newest.source}"))
        else:
            plan.unchanged += 1
        return
    timeline: list[Price] = list(history)
    candidates = [price for price in wanted if price.effective_from is not None and price.effective_from > now]
    if theirs is not None:
        candidates.insert(0, msgspec.structs.replace(theirs, effective_from=now))
    for price in candidates:
        start = price.effective_from or now
        previous = in_force(timeline, start)
        if previous is not None and same_value(previous, price):
            plan.unchanged += 1
        elif previous is not None and previous.effective_from == start:
            plan.refused.append(Refusal(price, previous, f"a price {since(start)} is already in the book"))
        elif previous is not None:
            plan.changed.append((previous, price))
            timeline.append(price)
        else:
            plan.added.append(price)
            timeline.append(price)
