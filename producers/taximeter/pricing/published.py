"""The price book as workers publish it in Redis, and how a tool makes a `PriceBook` of it again.

A hash at `names.PRICES`: ``revision``; ``tag``, which differs whenever the book does; ``book``, a zlib stream of msgpack.
What is not needed to price an event (sources, history that never counts) is left out.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import zlib
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, ClassVar, Final

import msgspec

from taximeter.errors import PricesUnavailableError
from taximeter.pricing.price_book import PriceBook
from taximeter.pricing.terms import PriceEntry, Target

BYTES_MAX: Final = 256 * 1024 * 1024
"""No book is larger when unpacked; what claims to be is not one."""


class _Tier(msgspec.Struct, array_like=True, frozen=True):
    above: int
    amount: Decimal


class _Window(msgspec.Struct, array_like=True, frozen=True):
    start: int
    end: int
    amount: Decimal


class PublishedEntry(msgspec.Struct, array_like=True, frozen=True):
    """A price without its source."""

    source: ClassVar[str] = ""

    target: Target
    unit: str
    amount: Decimal
    per: Decimal
    id: int
    revision: int
    charge: str = "flat"
    tiers: tuple[_Tier, ...] = ()
    daily: tuple[_Window, ...] = ()
    effective_from: dt.datetime | None = None
    effective_until: dt.datetime | None = None
    fallback: tuple[str, str] | None = None


class _Book(msgspec.Struct, array_like=True, frozen=True):
    revision: int
    entries: list[PublishedEntry]
    aliases: list[tuple[str, dict[str, Any]]]
    """In order: the first catalogue's rules come first."""


class PublishedBook(msgspec.Struct, frozen=True):
    """A book ready to be written: the fields of the hash."""

    revision: int
    tag: str
    book: bytes


_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder(_Book).decode


def pack(book: PriceBook) -> PublishedBook:
    """A book in its published form."""
    content = _encode(_Book(book.revision, [*_slim(book.entries())], [*book.aliases.items()]))  # type: ignore[list-item]
    tag = f"{book.revision}-{hashlib.sha256(content).hexdigest()[:32]}"
    return PublishedBook(book.revision, tag, zlib.compress(content))


def unpack(packed: bytes) -> PriceBook:
    """The book of a published form.

    Raises:
        PricesUnavailableError: It cannot be read.
    """
    try:
        unpacking = zlib.decompressobj()
        content = unpacking.decompress(packed, BYTES_MAX)
        if not unpacking.eof:
            raise PricesUnavailableError("the published price book is cut off or too large")
        book = _decode(content)
    except (zlib.error, msgspec.DecodeError) as error:
        raise PricesUnavailableError(f"the published price book cannot be read: {error}") from error
    return PriceBook(book.revision, book.entries, dict(book.aliases))


def _slim(entries: Iterable[PriceEntry]) -> Iterable[PublishedEntry]:
    for entry in entries:
        yield PublishedEntry(
            target=Target(*entry.target),
            unit=entry.unit,
            amount=entry.amount,
            per=entry.per,
            id=entry.id,
            revision=entry.revision,
            charge=entry.charge,
            tiers=tuple(_Tier(tier.above, tier.amount) for tier in entry.tiers),
            daily=tuple(_Window(window.start, window.end, window.amount) for window in entry.daily),
            effective_from=entry.effective_from,
            effective_until=entry.effective_until,
            fallback=entry.fallback,
        )
