"""Reading the price book from the database, and filling an empty one from the installed catalogue."""

from __future__ import annotations

from typing import Any, cast

from psycopg import Connection

from taximeter.pricing.price_book import PriceBook
from taximeter_db.prices.store import Entry, current_revision, read_aliases, read_entries


def load_book(conn: Connection[Any], revision: int | None = None) -> PriceBook:
    """Read the price book, newest state or as it was at `revision`.

    Revisions are committed in their order and never change, so reading the number first and then everything up to it
    gives one consistent state without holding a snapshot.
    """
    number = current_revision(conn) if revision is None else revision
    return PriceBook(number, read_entries(conn, number), read_aliases(conn, number))


def stored_entries(book: PriceBook) -> list[Entry]:
    """The entries of a book that `load_book` made, ordered by target, unit and start."""
    return cast("list[Entry]", book.entries())


def seed(conn: Connection[Any]) -> int:
    """Fill an empty book from the installed catalogue; do nothing to any other. Returns how many prices were added.

    Raises:
        CatalogueError: genai-prices is not installed.
    """
    if current_revision(conn):
        return 0
    # Half a second of import, which only the first start of a new database pays.
    from taximeter_db.prices.changes import ImportTerms, import_prices
    from taximeter_worker.pricing.genai_catalogue import CATALOGUE, read_catalogue

    catalogue = read_catalogue()
    plan = import_prices(
        conn,
        catalogue.prices,
        {CATALOGUE: catalogue.aliases},
        ImportTerms(f"seed {catalogue.source}", CATALOGUE),
        only_if_empty=True,
    )
    return len(plan.added)
