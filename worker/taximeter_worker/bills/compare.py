"""Metered against billed, per model and day, and why they differ.

What is missing is valued at the bill's own rate of that unit, so that what is left can only be the price or rounding.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import msgspec
from psycopg import Connection

from taximeter import names
from taximeter_db.sql import statements
from taximeter_worker.bills.lines import Line
from taximeter_worker.errors import BillError

ROUNDING: Final = Decimal("0.005")
"""USD a billed line: what a provider that rounds to cents may add or leave out."""
KINDS: Final = ("unmetered_calls", "missing_usage", "unbilled", "price", "rounding", "unexplained")
_SQL: Final = statements("metered")
_DATE: Final = re.compile(r"[-@]20[0-9]{2}(?:-?[0-9]{2}){2}(?=$|-v[0-9])")
_PLACES: Final = 12


class Reason(msgspec.Struct, frozen=True):
    """A part of a difference, one of `KINDS`. `amount` in USD, positive where more is billed than metered; None: unknown.

    `unit`, `billed` and `metered` say what was counted, where that differs.
    """

    kind: str
    amount: Decimal | None
    unit: str | None = None
    billed: Decimal | None = None
    metered: Decimal | None = None


class Row(msgspec.Struct, frozen=True):
    """One model on one day. Costs in USD; None: the log, or the bill, does not know it on that day."""

    day: dt.date
    model: str
    usages: int
    metered: Decimal | None
    billed: Decimal | None
    reasons: tuple[Reason, ...]

    @property
    def difference(self) -> Decimal:
        """By how much more is billed than metered."""
        return ((self.billed or Decimal(0)) - (self.metered or Decimal(0))).normalize()


class _Side:
    """What one side has of a model on a day."""

    def __init__(self) -> None:
        self.model = ""
        self.lines = 0
        self.cost: Decimal | None = None
        self.costs: dict[str, Decimal] = defaultdict(Decimal)
        self.quantities: dict[str, Decimal] = defaultdict(Decimal)

    def add_cost(self, cost: Decimal) -> None:
        self.cost = cost + (self.cost or Decimal(0))


Key = tuple[dt.date, str]


def compare(
    conn: Connection[Any],
    lines: Iterable[Line],
    providers: list[str],
    *,
    models: Mapping[str, str] | None = None,
    rounding: Decimal = ROUNDING,
) -> list[Row]:
    """Compare a bill with the log, over all days from its first to its last.

    Args:
        conn: To read all workspaces with.
        lines: The bill's.
        providers: What usages of this provider name as theirs.
        models: What a billed name is called in the log, where the two do not resemble each other.
        rounding: USD that a billed line may be off by.

    Raises:
        BillError: The bill has no line.
        psycopg.errors.InsufficientPrivilege: The user may not read every workspace.
    """
    billed = _billed(lines)
    if not billed:
        raise BillError("The file holds no line of this provider's models.")
    days = [day for day, _ in billed]
    metered = _metered(conn, providers, min(days), max(days))
    known = {key: side.model for (_, key), side in metered.items()}
    named = {_key(theirs): _key(ours) for theirs, ours in (models or {}).items()}
    joined: dict[Key, _Side] = {}
    for (day, key), side in billed.items():
        _merge(joined.setdefault((day, named.get(key) or _resembling(key, known)), _Side()), side)
    return [
        _row(place, joined.get(place), metered.get(place), rounding) for place in sorted(joined.keys() | metered.keys())
    ]


def _billed(lines: Iterable[Line]) -> dict[Key, _Side]:
    sides: dict[Key, _Side] = defaultdict(_Side)
    for line in lines:
        if not line.cost and not line.quantity:
            continue  # reports list what nobody used
        side = sides[line.day, _key(line.model)]
        side.model = side.model or line.model
        if line.cost is not None:
            side.lines += 1
            side.add_cost(line.cost)
            side.costs[line.unit or ""] += line.cost
        if line.quantity is not None and line.unit is not None:
            side.quantities[line.unit] += line.quantity
    return dict(sides)


def _metered(conn: Connection[Any], providers: list[str], first: dt.date, last: dt.date) -> dict[Key, _Side]:
    midnight = dt.time(tzinfo=dt.UTC)
    values = {
        "providers": providers,
        "start": dt.datetime.combine(first, midnight),
        "end": dt.datetime.combine(last + dt.timedelta(days=1), midnight),
    }
    sides: dict[Key, _Side] = defaultdict(_Side)
    with conn.transaction():
        conn.execute(_SQL["planning"])
        for day, model, usages, cost in conn.execute(_SQL["costs"], values):
            side = sides[day, _key(model)]
            side.model = side.model or model or "(no model)"
            side.lines += usages
            side.add_cost(Decimal(cost))
        for day, model, unit, quantity in conn.execute(_SQL["quantities"], values):
            sides[day, _key(model)].quantities[unit] += Decimal(quantity)
    return dict(sides)


def _merge(into: _Side, other: _Side) -> None:
    into.model = into.model or other.model
    into.lines += other.lines
    if other.cost is not None:
        into.add_cost(other.cost)
    for unit, cost in other.costs.items():
        into.costs[unit] += cost
    for unit, quantity in other.quantities.items():
        into.quantities[unit] += quantity


def _key(model: str) -> str:
    """A model's name without date, signs and case: ``gpt-4o-2024-08-06`` and ``GPT-4o`` are one."""
    return re.sub(r"[^a-z0-9]", "", _DATE.sub("", model).lower())


def _resembling(billed: str, metered: Mapping[str, str]) -> str:
    """The metered model that a billed one is: the same, or the only one whose name holds it."""
    if billed in metered:
        return billed
    holding = [key for key in metered if billed and billed in key]
    return holding[0] if len(holding) == 1 else billed


def _row(place: Key, billed: _Side | None, metered: _Side | None, rounding: Decimal) -> Row:
    day, _ = place
    usages = metered.lines if metered else 0
    costs = (metered.cost if metered else None, billed.cost if billed else None)
    if billed is None or metered is None:
        model = (metered or billed or _Side()).model
        amount = (costs[1] or Decimal(0)) - (costs[0] or Decimal(0))
        kind = "unbilled" if billed is None else "unmetered_calls"
        known = None if billed is not None and billed.cost is None else amount.normalize()
        return Row(day, model, usages, *costs, (Reason(kind, known),))
    return Row(day, metered.model, usages, *costs, tuple(_reasons(billed, metered, rounding)))


def _reasons(billed: _Side, metered: _Side, rounding: Decimal) -> Iterator[Reason]:
    """Take the difference apart: usage that one side lacks, at the bill's rate; what is left is price or rounding."""
    left = None if billed.cost is None else Fraction(billed.cost) - Fraction(metered.cost or 0)
    counted = {unit: quantity for unit, quantity in billed.quantities.items() if quantity}
    ours = _folded(metered.quantities, counted)
    certain = bool(counted)
    for unit in sorted(counted.keys() | ours.keys()) if counted else ():
        theirs, mine = counted.get(unit, Decimal(0)), ours.get(unit, Decimal(0))
        if theirs == mine:
            continue
        amount = None
        if theirs and unit in billed.costs:
            amount = Fraction(billed.costs[unit]) * Fraction(theirs - mine) / Fraction(theirs)
            left = None if left is None else left - amount
        else:
            certain = False
        kind = "missing_usage" if theirs > mine else "unbilled"
        yield Reason(kind, None if amount is None else _decimal(amount), unit, theirs, mine)
    if left is None or not left:
        return
    if abs(left) <= Fraction(rounding) * billed.lines:
        yield Reason("rounding", _decimal(left))
    else:
        yield Reason("price" if certain else "unexplained", _decimal(left))


def _folded(metered: Mapping[str, Decimal], billed: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """Metered tokens by the units of the bill: a sub-pool that it does not tell apart counts into its parent."""
    folded: dict[str, Decimal] = defaultdict(Decimal)
    for name, quantity in metered.items():
        unit = name
        while unit not in billed and unit in names.PARENT_UNITS:
            unit = names.PARENT_UNITS[unit]
        if quantity and (unit in billed or unit.endswith("_tokens")):
            folded[unit] += quantity
    return folded


def _decimal(value: Fraction) -> Decimal:
    """To 12 places, half to even."""
    return Decimal(round(value * 10**_PLACES)).scaleb(-_PLACES).normalize()
