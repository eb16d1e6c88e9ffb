"""The price book's store: immutable entries, numbered revisions, and the rules for adding to them.

Every change (one `set_price`, or one whole import) is one revision. Changes run one after another under a lock, so
revisions become visible in their order, and a reader that asks for a revision always sees the same book.
Nothing here knows how an event is priced: that is ``taximeter_worker.pricing``.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec
from psycopg import Connection
from psycopg.types.json import Jsonb

from taximeter_db.errors import TaximeterDbError

BOOK_LOCK: Final = 7_480_312_912
"""Advisory lock of whoever changes the book. An advisory one, because the application's role may only insert."""
AMOUNT_LIMIT: Final = Decimal(10**15)
DECIMALS_MAX: Final = 30
TIER_LIMIT: Final = 10**18
TEXT_MAX: Final = 256

_DECIMAL = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,30})?", re.ASCII)
_UNIT = re.compile(r"[A-Za-z0-9_.:\-]{1,64}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_COLUMNS = "revision, effective_from, amount, per, tool, provider, model, unit, tier_above, tier_amounts, source"


class PriceError(TaximeterDbError, ValueError):
    """A price that cannot be accepted; the book is as it was."""


class PriceOverlapError(PriceError):
    """The same target and unit already has a price from the very same moment."""


class BackdatedPriceError(PriceError):
    """The price would change a time for which one was already in force, and nobody said that it may."""


class Target(NamedTuple):
    """What a price is for: a tool, a provider's model, or both together."""

    tool: str | None
    provider: str | None
    model: str | None

    def __str__(self) -> str:
        parts = [f"tool {self.tool}"] if self.tool is not None else []
        if self.provider is not None:
            parts.append(f"{self.provider} {self.model}")
        return " with ".join(parts)


class Tier(msgspec.Struct, frozen=True):
    """A long-context tier: with more than `above` input tokens in the event, every unit costs `amount` per N."""

    above: int
    amount: Decimal


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """`amount` USD per `per` units of `unit`, from `effective_from` (aware; None: since the beginning of time)."""

    target: Target
    unit: str
    amount: Decimal
    per: Decimal = Decimal(1)
    tiers: tuple[Tier, ...] = ()
    effective_from: dt.datetime | None = None
    source: str = "by hand"

    def __str__(self) -> str:
        tiers = "".join(f", {plain(tier.amount)} above {tier.above:,} input tokens" for tier in self.tiers)
        return f"{plain(self.amount)} per {grouped(self.per)}{tiers} {since(self.effective_from)} ({self.source})"


class Entry(Price, frozen=True, kw_only=True):
    """A price as the book holds it."""

    id: int
    revision: int

    def __str__(self) -> str:
        return f"{super().__str__()[:-1]}, revision {self.revision})"


def plain(number: Decimal) -> str:
    """Write a decimal with all the digits it was given, never with an exponent."""
    return f"{number:f}"


def grouped(number: Decimal) -> str:
    """Write a decimal with thousands separators and without idle zeros: 1,000,000."""
    text = f"{number:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def since(moment: dt.datetime | None) -> str:
    """Say from when on, in UTC."""
    return "since ever" if moment is None else f"from {utc_text(moment)}"


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
        PriceError: The target is none, a text is blank, too long or holds control characters, a number is not
            finite, negative or out of range, or the tiers do not rise.
    """
    target = price.target
    if (target.provider is None) != (target.model is None):
        raise PriceError("A model's price needs both the provider and the model: a model's name alone is ambiguous.")
    if target.tool is None and target.provider is None:
        raise PriceError("A price needs a target: a tool, or a provider and a model.")
    for name, text in (*target._asdict().items(), ("source", price.source)):
        if text is not None and (not text.strip() or len(text) > TEXT_MAX or _CONTROL.search(text)):
            raise PriceError(f"The {name} must be 1 to {TEXT_MAX} characters, without control characters.")
    if not _UNIT.fullmatch(price.unit):
        raise PriceError(
            f"{price.unit[:80]!r} is no unit: write 1 to 64 letters, digits, _ . : or -, as events name it."
        )
    for name, number in (("price", price.amount), ("per", price.per), *(("tier", tier.amount) for tier in price.tiers)):
        if not number.is_finite() or number < 0 or number >= AMOUNT_LIMIT or _decimals(number) > DECIMALS_MAX:
            raise PriceError(f"The {name} must be a number from 0 up to 10^15, with at most {DECIMALS_MAX} decimals.")
    if price.per == 0:
        raise PriceError('"per" must be more than 0: a price is an amount per that many units.')
    above = [tier.above for tier in price.tiers]
    if above != sorted(set(above)) or any(not 0 <= threshold < TIER_LIMIT for threshold in above):
        raise PriceError("Tiers must rise: each begins above more input tokens than the one before it.")
    if price.effective_from is not None and price.effective_from.tzinfo is None:
        raise PriceError("The time from which a price holds needs a time zone.")
    return price


def _decimals(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def same_value(one: Price, other: Price) -> bool:
    """Whether two prices charge the same, whatever their times, sources and ways of writing it."""

    def rates(price: Price) -> list[tuple[int, Decimal]]:
        # Cross-multiplied, so that no division rounds: 2.5 per 1,000,000 equals 0.0025 per 1,000.
        return [(-1, price.amount), *((tier.above, tier.amount) for tier in price.tiers)]

    mine, theirs = rates(one), rates(other)
    return len(mine) == len(theirs) and all(
        above == above_other and _equal_rates(amount, one.per, amount_other, other.per)
        for (above, amount), (above_other, amount_other) in zip(mine, theirs, strict=True)
    )


def _equal_rates(amount: Decimal, per: Decimal, amount_other: Decimal, per_other: Decimal) -> bool:
    (a, b), (c, d) = amount.as_integer_ratio(), per.as_integer_ratio()
    (e, f), (g, h) = amount_other.as_integer_ratio(), per_other.as_integer_ratio()
    return a * d * f * g == e * h * b * c


def current_revision(conn: Connection[Any]) -> int:
    """Number of the book's newest state, 0 for an empty book. One index look-up: meant for polling."""
    row = conn.execute("SELECT max(revision) FROM taximeter.price_revisions").fetchone()
    return int(row[0]) if row and row[0] is not None else 0


def read_entries(conn: Connection[Any], revision: int) -> list[Entry]:
    """All entries of the book as it was at `revision`, oldest first."""
    rows = conn.execute(
        f"SELECT id, {_COLUMNS} FROM taximeter.price_entries WHERE revision <= %s ORDER BY id",  # noqa: S608 - a constant
        (revision,),
    )
    return [_entry(row) for row in rows]


def read_history(conn: Connection[Any], target: Target, unit: str) -> list[Entry]:
    """The entries of one target and unit, by the time from which they hold."""
    rows = conn.execute(
        f"SELECT id, {_COLUMNS} FROM taximeter.price_entries"  # noqa: S608 - a constant
        " WHERE (tool, provider, model) IS NOT DISTINCT FROM (%s::text, %s::text, %s::text) AND unit = %s"
        " ORDER BY effective_from NULLS FIRST, revision",
        (*target, unit),
    )
    return [_entry(row) for row in rows]


def _entry(row: tuple[Any, ...]) -> Entry:
    number, revision, start, amount, per, tool, provider, model, unit, above, amounts, source = row
    return Entry(
        id=number,
        revision=revision,
        target=Target(tool, provider, model),
        unit=unit,
        amount=amount,
        per=per,
        tiers=tuple(map(Tier, above, amounts)) if above else (),
        effective_from=start,
        source=source,
    )


def read_aliases(conn: Connection[Any], revision: int) -> dict[str, dict[str, Any]]:
    """Each catalogue's newest alias rules as of `revision`."""
    rows = conn.execute(
        "SELECT DISTINCT ON (catalogue) catalogue, rules FROM taximeter.price_aliases"
        " WHERE revision <= %s ORDER BY catalogue, revision DESC",
        (revision,),
    )
    return dict(rows.fetchall())


@contextmanager
def changing(conn: Connection[Any]) -> Iterator[dt.datetime]:
    """One change of the book, alone: a transaction that yields the time of the change."""
    with conn.transaction():
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (BOOK_LOCK,))
        # Not now(), which is the transaction's start: a change that waited for the lock is later than its forerunner.
        row = conn.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None  # noqa: S101 - for the type checker: a SELECT without FROM has a row
        yield row[0]


def append(
    conn: Connection[Any], prices: Iterable[Price], aliases: Mapping[str, Mapping[str, Any]], reason: str
) -> int:
    """Write one revision inside `changing`, and return its number. The rules were checked before."""
    row = conn.execute(
        "INSERT INTO taximeter.price_revisions (revision, reason)"
        " SELECT coalesce(max(revision), 0) + 1, %s FROM taximeter.price_revisions RETURNING revision",
        (reason,),
    ).fetchone()
    assert row is not None  # noqa: S101 - for the type checker: one row was inserted
    revision = int(row[0])
    with conn.cursor() as cursor, cursor.copy(f"COPY taximeter.price_entries ({_COLUMNS}) FROM STDIN") as copy:
        for price in prices:
            above, amounts = [tier.above for tier in price.tiers], [tier.amount for tier in price.tiers]
            copy.write_row(
                (
                    revision,
                    price.effective_from,
                    price.amount,
                    price.per,
                    *price.target,
                    price.unit,
                    above,
                    amounts,
                    price.source,
                )
            )
    for catalogue, rules in aliases.items():
        conn.execute(
            "INSERT INTO taximeter.price_aliases (catalogue, revision, rules) VALUES (%s, %s, %s)",
            (catalogue, revision, Jsonb(rules)),
        )
    return revision
