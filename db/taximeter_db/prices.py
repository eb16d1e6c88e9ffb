"""The price book's store: immutable entries, numbered revisions, and the rules for adding to them.

Every change (one `set_price`, or one whole import) is one revision. Changes run one after another under a lock, so
revisions become visible in their order, and a reader that asks for a revision always sees the same book.
Nothing here knows how an event is priced: that is ``taximeter_worker.pricing``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from psycopg import Connection
from psycopg.types.json import Jsonb

from taximeter_db.prices_terms import (
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
    "BOOK_LOCK",
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

BOOK_LOCK: Final = 7_480_312_912
"""Advisory lock of whoever changes the book. An advisory one, because the application's role may only insert."""
_COLUMNS = (
    "revision, effective_from, effective_until, amount, per, tool, provider, model, workspace_id, unit, charge,"
    " tier_above, tier_amounts, daily_from, daily_until, daily_amounts, fallback_provider, fallback_model, source"
)


def current_revision(conn: Connection[Any]) -> int:
    """Number of the book's newest state, 0 for an empty book. One index look-up: meant for polling."""
    row = conn.execute("SELECT max(revision) FROM taximeter.price_revisions").fetchone()
    return int(row[0]) if row and row[0] is not None else 0


def revised_at(conn: Connection[Any], revision: int) -> dt.datetime | None:
    """When the book came into this state; None where it never was in it."""
    row = conn.execute("SELECT created_at FROM taximeter.price_revisions WHERE revision = %s", [revision]).fetchone()
    return row[0] if row else None


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
        " WHERE (tool, provider, model, workspace_id)"
        " IS NOT DISTINCT FROM (%s::text, %s::text, %s::text, %s::text) AND unit = %s"
        " ORDER BY effective_from NULLS FIRST, revision",
        (*target, unit),
    )
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
            copy.write_row(_row(revision, price))
    for catalogue, rules in aliases.items():
        conn.execute(
            "INSERT INTO taximeter.price_aliases (catalogue, revision, rules) VALUES (%s, %s, %s)",
            (catalogue, revision, Jsonb(rules)),
        )
    return revision
