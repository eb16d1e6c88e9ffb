"""The price book: what an event costs, and why.

`load_book` reads it, `PriceBook.price` prices an event in picodollars, `explain` makes the receipt, `seed` fills an
empty book from the installed catalogue. `current_revision` is the cheap question whether to load again.
"""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from taximeter_db.prices import current_revision, read_aliases, read_entries
from taximeter_worker.pricing.book import PriceBook
from taximeter_worker.pricing.errors import BookFileError, CatalogueError, OutOfRange, PriceMissing, PricingError
from taximeter_worker.pricing.receipt import Receipt, ReceiptLine, explain

__all__ = [
    "BookFileError",
    "CatalogueError",
    "OutOfRange",
    "PriceBook",
    "PriceMissing",
    "PricingError",
    "Receipt",
    "ReceiptLine",
    "current_revision",
    "explain",
    "load_book",
    "seed",
]


def load_book(conn: Connection[Any], revision: int | None = None) -> PriceBook:
    """Read the price book, newest state or as it was at `revision`.

    Revisions are committed in their order and never change, so reading the number first and then everything up to it
    gives one consistent state without holding a snapshot.
    """
    number = current_revision(conn) if revision is None else revision
    return PriceBook(number, read_entries(conn, number), read_aliases(conn, number))


def seed(conn: Connection[Any]) -> int:
    """Fill an empty book from the installed catalogue; do nothing to any other. Returns how many prices were added.

    Raises:
        CatalogueError: genai-prices is not installed.
    """
    if current_revision(conn):
        return 0
    # Half a second of import, which only the first start of a new database pays.
    from taximeter_db.prices_change import import_prices
    from taximeter_worker.pricing.genai_catalogue import CATALOGUE, read_catalogue

    catalogue = read_catalogue()
    plan = import_prices(
        conn,
        catalogue.prices,
        {CATALOGUE: catalogue.aliases},
        reason=f"seed {catalogue.source}",
        catalogue=CATALOGUE,
        only_if_empty=True,
    )
    return len(plan.added)
