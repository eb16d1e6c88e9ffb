"""The price book's store: immutable entries, numbered revisions, and the rules for adding to them.

Every change (one `set_price`, or one whole import) is one revision. Changes run one after another under a lock, so
revisions become visible in their order, and a reader that asks for a revision always sees the same book.
Nothing here knows how an event is priced: that is ``taximeter_worker.pricing``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from psycopg import Connection
from sqlalchemy import Text, bindparam, func, insert, select, tuple_

from taximeter_db import locks
from taximeter_db.core import Statement, copy_in
from taximeter_db.models.base import Id, table
from taximeter_db.models.prices import PriceAliases, PriceEntry, PriceRevision
from taximeter_db.prices.terms import (
    BackdatedPriceError,
    Entry,
    Price,
    PriceError,
    PriceOverlapError,
    Target,
    Tier,
    Window,
    check,
    grouped,
    parse_decimal,
    plain,
    same_value,
    since,
    utc_text,
    value_text,
)

__all__ = [
    "BackdatedPriceError",
    "Entry",
    "Price",
    "PriceError",
    "PriceOverlapError",
    "Target",
    "Tier",
    "Window",
    "append",
    "changing",
    "check",
    "current_revision",
    "grouped",
    "parse_decimal",
    "plain",
    "read_aliases",
    "read_entries",
    "read_history",
    "revised_at",
    "same_value",
    "since",
    "utc_text",
    "value_text",
]

_COLUMNS = (
    PriceEntry.revision,
    PriceEntry.effective_from,
    PriceEntry.effective_until,
    PriceEntry.amount,
    PriceEntry.per,
    PriceEntry.tool,
    PriceEntry.provider,
    PriceEntry.model,
    PriceEntry.workspace_id,
    PriceEntry.unit,
    PriceEntry.charge,
    PriceEntry.tier_above,
    PriceEntry.tier_amounts,
    PriceEntry.daily_from,
    PriceEntry.daily_until,
    PriceEntry.daily_amounts,
    PriceEntry.fallback_provider,
    PriceEntry.fallback_model,
    PriceEntry.source,
)
_NEWEST = Statement(select(func.coalesce(func.max(PriceRevision.revision), 0)))
_REVISED = Statement(select(PriceRevision.created_at).where(PriceRevision.revision == bindparam("revision")))
_ENTRIES = Statement(
    select(PriceEntry.id, *_COLUMNS).where(PriceEntry.revision <= bindparam("revision")).order_by(PriceEntry.id)
)
_HISTORY = Statement(
    select(PriceEntry.id, *_COLUMNS)
    .where(
        PriceEntry.tool.is_not_distinct_from(bindparam("tool", type_=Id)),
        PriceEntry.provider.is_not_distinct_from(bindparam("provider", type_=Id)),
        PriceEntry.model.is_not_distinct_from(bindparam("model", type_=Id)),
        PriceEntry.workspace_id.is_not_distinct_from(bindparam("workspace_id", type_=Id)),
        PriceEntry.unit == bindparam("unit", type_=Id),
    )
    .order_by(PriceEntry.effective_from.nulls_first(), PriceEntry.revision)
)
_ALIASES = Statement(
    select(PriceAliases.catalogue, PriceAliases.rules).where(
        tuple_(PriceAliases.catalogue, PriceAliases.revision).in_(
            select(PriceAliases.catalogue, func.max(PriceAliases.revision))
            .where(PriceAliases.revision <= bindparam("revision"))
            .group_by(PriceAliases.catalogue)
        )
    )
)
# Not now(), which is the transaction's start: a change that waited for the lock is later than its forerunner.
_CLOCK = Statement(select(func.clock_timestamp()))
_APPEND = Statement(
    insert(PriceRevision)
    .from_select(
        ["revision", "reason"],
        select(func.coalesce(func.max(PriceRevision.revision), 0) + 1, bindparam("reason", type_=Text)),
    )
    .returning(PriceRevision.revision)
)
_APPEND_ALIASES = Statement(
    insert(PriceAliases).values(
        catalogue=bindparam("catalogue"), revision=bindparam("revision"), rules=bindparam("rules")
    )
)


def current_revision(conn: Connection[Any]) -> int:
    """Number of the book's newest state, 0 for an empty book. One index look-up: meant for polling."""
    return int(_NEWEST.scalar(conn))


def revised_at(conn: Connection[Any], revision: int) -> dt.datetime | None:
    """When the book came into this state; None where it never was in it."""
    moment: dt.datetime | None = _REVISED.scalar(conn, revision=revision)
    return moment


def read_entries(conn: Connection[Any], revision: int) -> list[Entry]:
    """All entries of the book as it was at `revision`, oldest first."""
    return [_entry(row) for row in _ENTRIES.all(conn, revision=revision)]


def read_history(conn: Connection[Any], target: Target, unit: str) -> list[Entry]:
    """The entries of one target and unit, by the time from which they hold."""
    tool, provider, model, workspace_id = target
    rows = _HISTORY.all(conn, tool=tool, provider=provider, model=model, workspace_id=workspace_id, unit=unit)
    return [_entry(row) for row in rows]


def _entry(row: tuple[Any, ...]) -> Entry:
    number, revision, start, until, amount, per, tool, provider, model, workspace, unit, charge, *lists, source = row
    above, amounts, opens, closes, hourly, fallback_provider, fallback_model = lists
    return Entry(
        id=number,
        revision=revision,
        target=Target(tool, provider, model, workspace),
        unit=unit,
        amount=amount,
        per=per,
        charge=charge,
        tiers=tuple(map(Tier, above, amounts)) if above else (),
        daily=tuple(map(Window, opens, closes, hourly)) if opens else (),
        fallback=None if fallback_provider is None else (fallback_provider, fallback_model),
        effective_from=start,
        effective_until=until,
        source=source,
    )


def _row(revision: int, price: Price) -> tuple[Any, ...]:
    """In the order of `_COLUMNS`."""
    return (
        revision,
        price.effective_from,
        price.effective_until,
        price.amount,
        price.per,
        *price.target,
        price.unit,
        price.charge,
        [tier.above for tier in price.tiers],
        [tier.amount for tier in price.tiers],
        [window.start for window in price.daily],
        [window.end for window in price.daily],
        [window.amount for window in price.daily],
        *(price.fallback or (None, None)),
        price.source,
    )


def read_aliases(conn: Connection[Any], revision: int) -> dict[str, dict[str, Any]]:
    """Each catalogue's newest alias rules as of `revision`."""
    return dict(_ALIASES.all(conn, revision=revision))


@contextmanager
def changing(conn: Connection[Any]) -> Iterator[dt.datetime]:
    """One change of the book, alone: a transaction that yields the time of the change."""
    with conn.transaction():
        # An advisory lock, because the application's role may only insert.
        locks.hold_until_commit(conn, locks.AdvisoryLock.PRICE_BOOK)
        yield _CLOCK.scalar(conn)


def append(
    conn: Connection[Any], prices: Iterable[Price], aliases: Mapping[str, Mapping[str, Any]], reason: str
) -> int:
    """Write one revision inside `changing`, and return its number. The rules were checked before."""
    revision = int(_APPEND.scalar(conn, reason=reason))
    with conn.cursor() as cursor, copy_in(cursor, table(PriceEntry), [column.key for column in _COLUMNS]) as copy:
        for price in prices:
            copy.write_row(_row(revision, price))
    for catalogue, rules in aliases.items():
        _APPEND_ALIASES.run(conn, catalogue=catalogue, revision=revision, rules=rules)
    return revision
