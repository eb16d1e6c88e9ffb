"""What a price says: whom it is for, what it charges and how, from when until when; and what the book refuses.

How an event's cost is computed from it is ``taximeter_worker.pricing``'s business, and docs/prices.md's.
"""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from taximeter_db import limits
from taximeter_db.errors import TaximeterDbError
from taximeter_db.limits import is_workspace_id

AMOUNT_LIMIT: Final = Decimal(10**15)
DECIMALS_MAX: Final = 30
TIER_LIMIT: Final = 10**18
TEXT_MAX: Final = 256
NAME_MAX: Final = {"tool": 128, "provider": 128, "model": 256}
"""Characters that an event can carry; a price for a longer name would never be asked for."""
DAY_SECONDS: Final = 86_400

FEE, MULTIPLIER, MINIMUM, MAXIMUM, MISSING = "@fee", "@multiplier", "@minimum", "@maximum", "@missing"
RULES: Final = {
    FEE: "charge per event",
    MULTIPLIER: "multiplier",
    MINIMUM: "minimum charge",
    MAXIMUM: "maximum charge",
    MISSING: "policy for missing prices",
}
"""Rules for whole events stand in the book as prices of these units, whose names no event can use."""
CHARGES: Final = ("flat", "package", "graduated", "volume")
POLICIES: Final = ("quarantine", "estimate", "free")

_DECIMAL = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,30})?", re.ASCII)
_UNIT = re.compile(limits.UNIT_PATTERN, re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class PriceError(TaximeterDbError, ValueError):
    """A price that cannot be accepted; the book is as it was."""


class PriceOverlapError(PriceError):
    """Two prices of the same target and unit would hold at the same time."""


class BackdatedPriceError(PriceError):
    """The price would change a time for which one was already in force, and nobody said that it may."""


class Target(NamedTuple):
    """What a price is for: a tool, a provider's model, or both together; or, for a multiplier, a workspace."""

    tool: str | None
    provider: str | None
    model: str | None
    workspace: str | None = None

    def __str__(self) -> str:
        parts = [f"workspace {self.workspace}"] if self.workspace is not None else []
        if self.tool is not None:
            parts.append(f"tool {self.tool}")
        if self.provider is not None:
            parts.append(f"{self.provider} {self.model}")
        return " with ".join(parts)


class Tier(msgspec.Struct, frozen=True):
    """`amount` per N beyond `above`: of a flat price, input tokens of the event; else, the unit's own quantity."""

    above: int
    amount: Decimal


class Window(msgspec.Struct, frozen=True):
    """Every day from `start` to `end` (seconds of the UTC day, the end excluded) the price is `amount` instead."""

    start: int
    end: int
    amount: Decimal

    def __str__(self) -> str:
        return f"{_clock(self.start)}-{_clock(self.end)} UTC"


def _clock(seconds: int) -> str:
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}"
    return f"{text}:{seconds % 60:02}" if seconds % 60 else text


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """`amount` USD per `per` units of `unit`, from `effective_from` (aware; None: since the beginning of time).

    `charge` says how: ``flat`` (tiers, if any, are for long context), ``package`` (started blocks of `per`),
    ``graduated`` or ``volume`` (tiers of the unit's own quantity); of a ``@missing`` policy, one of `POLICIES`.
    It ends when the next one of its target and unit begins, or at `effective_until` if that is given.
    """

    target: Target
    unit: str
    amount: Decimal
    per: Decimal = Decimal(1)
    tiers: tuple[Tier, ...] = ()
    effective_from: dt.datetime | None = None
    source: str = "by hand"
    charge: str = "flat"
    daily: tuple[Window, ...] = ()
    effective_until: dt.datetime | None = None
    fallback: tuple[str, str] | None = None

    def __str__(self) -> str:
        until = "" if self.effective_until is None else f" until {utc_text(self.effective_until)}"
        return f"{value_text(self)} {since(self.effective_from)}{until} ({self.source})"


class Entry(Price, frozen=True, kw_only=True):
    """A price as the book holds it."""

    id: int
    revision: int

    def __str__(self) -> str:
        return f"{super().__str__()[:-1]}, revision {self.revision})"


def value_text(price: Price) -> str:
    """What a price charges, for people: ``2.50 per 1,000,000, 5.00 above 200,000 input tokens``."""
    if price.unit == MISSING:
        by = f" by {' '.join(price.fallback)}" if price.fallback else ""
        return f"{price.charge}{by}"
    if price.unit in RULES:
        return f"{RULES[price.unit]} {plain(price.amount)}"
    of = "input tokens" if price.charge == "flat" else price.unit
    how = {"flat": "", "package": "started "}.get(price.charge, "")
    tiers = "".join(f", {plain(tier.amount)} above {tier.above:,} {of}" for tier in price.tiers)
    kind = f" ({price.charge})" if price.charge in {"graduated", "volume"} else ""
    daily = "".join(f", {plain(window.amount)} daily {window}" for window in price.daily)
    return f"{plain(price.amount)} per {how}{grouped(price.per)}{kind}{tiers}{daily}"


def plain(number: Decimal) -> str:
    """Write a decimal with all the digits it was given, never with an exponent."""
    return f"{number:f}"


def grouped(number: Decimal) -> str:
    """Write a decimal with thousands separators and without idle zeros: 1,000,000."""
    text = f"{number:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def since(moment: dt.datetime | None) -> str:
    """Say from when on, in UTC."""
    return "from the beginning" if moment is None else f"from {utc_text(moment)}"


def utc_text(moment: dt.datetime) -> str:
    """Write an aware time as RFC 3339 in UTC."""
    return moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


def parse_decimal(text: str, what: str) -> Decimal:
    """Read a plain decimal such as ``"2.50"``, keeping its digits.

    Raises:
        PriceError: No plain decimal (exponents, signs, separators, NaN), 10¹⁵ and more, or over 30 decimals.
    """
    if not _DECIMAL.fullmatch(text):
        raise PriceError(
            f"{what} {text[:40]!r} is not a plain decimal number. Write digits with a point, such as 2.50; "
            "no sign, no exponent, no thousands separator."
        )
    return Decimal(text)


def check(price: Price) -> Price:
    """Return `price` if the book could hold it.

    Raises:
        PriceError: The target is none or not one that this kind of price can have, a text is blank, too long or holds
            control characters, a number is not finite, negative or out of range, tiers or hours do not rise, or the
            end does not follow the start.
    """
    _check_target(price)
    for name, text in (
        *price.target._asdict().items(),
        ("source", price.source),
        *zip(("provider", "model"), price.fallback or (), strict=False),
    ):
        length_max = NAME_MAX.get(name, TEXT_MAX)
        if text is not None and (not text.strip() or len(text) > length_max or _CONTROL.search(text)):
            raise PriceError(f"The {name} must be 1 to {length_max} characters, without control characters.")
    if price.unit not in RULES and not _UNIT.fullmatch(price.unit):
        raise PriceError(
            f"{price.unit[:80]!r} is not a unit: write 1 to 64 letters, digits, _ . : or -, as events name it."
        )
    for name, number in (
        ("price", price.amount),
        ("per", price.per),
        *(("tier", tier.amount) for tier in price.tiers),
        *(("price by the hour", window.amount) for window in price.daily),
    ):
        if not number.is_finite() or number < 0 or number >= AMOUNT_LIMIT or _decimals(number) > DECIMALS_MAX:
            raise PriceError(f"The {name} must be a number from 0 up to 10^15, with at most {DECIMALS_MAX} decimals.")
    if price.per == 0:
        raise PriceError('"per" must be more than 0: a price is an amount per that many units.')
    _check_charge(price)
    for moment in (price.effective_from, price.effective_until):
        if moment is not None and moment.tzinfo is None:
            raise PriceError("The times from and until which a price holds need a time zone.")
    start, end = price.effective_from, price.effective_until
    if start is not None and end is not None and end <= start:
        raise PriceError(f"A price must end after it begins, not {utc_text(end)} after {utc_text(start)}.")
    return price


def _check_target(price: Price) -> None:
    target = price.target
    if (target.provider is None) != (target.model is None):
        raise PriceError("A model's price needs both the provider and the model: a model's name alone is ambiguous.")
    if target.tool is None and target.provider is None and target.workspace is None:
        raise PriceError("A price needs a target: a tool, or a provider and a model.")
    if target.workspace is not None:
        if price.unit != MULTIPLIER or target.provider is not None:
            raise PriceError("A workspace can have a multiplier of its own, for everything or for one tool; no prices.")
        if not is_workspace_id(target.workspace):
            raise PriceError(f"{target.workspace[:40]!r} is not a workspace id: 1 to 128 letters, digits, . _ : or -.")
    if price.unit == MISSING and (target.tool is None or target.provider is not None):
        raise PriceError("The policy for missing prices is set for a tool.")


def _check_charge(price: Price) -> None:
    above = [tier.above for tier in price.tiers]
    if above != sorted(set(above)) or any(not 0 <= threshold < TIER_LIMIT for threshold in above):
        raise PriceError("Tiers must rise: each begins above a larger whole number than the one before it.")
    policy = price.unit == MISSING
    if price.charge not in (POLICIES if policy else CHARGES):
        raise PriceError(f"{price.charge[:40]!r} is not one of {', '.join(POLICIES if policy else CHARGES)}.")
    if (price.fallback is not None) != (policy and price.charge == "estimate"):
        raise PriceError("An estimate needs the provider and model by whose prices to estimate; nothing else has them.")
    if price.unit in RULES and (
        price.tiers or price.daily or price.per != 1 or (not policy and price.charge != "flat")
    ):
        raise PriceError("A rule for whole events is one number: no tiers, hours, blocks or amounts per N.")
    if price.charge in {"graduated", "volume"} and not price.tiers:
        raise PriceError(f"A {price.charge} price needs tiers: from which quantity on which amount counts.")
    if price.charge == "package" and price.tiers:
        raise PriceError("A price per started block has no tiers.")
    if price.daily and (price.tiers or price.charge != "flat"):
        raise PriceError("Only a flat price without tiers can differ by the time of day.")
    end = 0
    for window in price.daily:
        if not end <= window.start < window.end <= DAY_SECONDS:
            raise PriceError("Hours must rise within the day and not overlap; write midnight's two sides apart.")
        end = window.end


def _decimals(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def same_value(one: Price, other: Price) -> bool:
    """Whether two prices charge the same, whatever their times, sources and ways of writing it."""

    def steps(price: Price) -> list[tuple[object, Decimal]]:
        return [
            (price.charge, price.amount),
            *((tier.above, tier.amount) for tier in price.tiers),
            *(((window.start, window.end), window.amount) for window in price.daily),
        ]

    mine, theirs = steps(one), steps(other)
    if len(mine) != len(theirs) or one.fallback != other.fallback:
        return False
    if one.charge == "package" and one.per != other.per:
        return False
    # Cross-multiplied, so that no division rounds: 2.5 per 1,000,000 equals 0.0025 per 1,000.
    return all(
        step == step_other and _equal_rates(amount, one.per, amount_other, other.per)
        for (step, amount), (step_other, amount_other) in zip(mine, theirs, strict=True)
    )


def _equal_rates(amount: Decimal, per: Decimal, amount_other: Decimal, per_other: Decimal) -> bool:
    (a, b), (c, d) = amount.as_integer_ratio(), per.as_integer_ratio()
    (e, f), (g, h) = amount_other.as_integer_ratio(), per_other.as_integer_ratio()
    return a * d * f * g == e * h * b * c
