"""Receipts for the dashboard, made from the price book: see docs/decisions/0071."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any

import msgspec
from psycopg import Connection

from taximeter.errors import OutOfRangeError, PriceMissingError
from taximeter.pricing.price_book import PriceBook
from taximeter.pricing.price_index import PriceTerms, microseconds
from taximeter_db.money import parse_usd
from taximeter_db.queries.usages import UsageRow
from taximeter_worker.pricing.loading import load_book
from taximeter_worker.pricing.receipt import explain

REVISIONS_KEPT = 4


class Receipts:
    """Explains usages; keeps the last few revisions of the price book in memory."""

    def __init__(self) -> None:
        self._books: OrderedDict[int, PriceBook] = OrderedDict()
        self._lock = Lock()

    def __call__(self, conn: Connection[Any], row: UsageRow) -> dict[str, Any] | None:
        """The receipt of a usage; None where the book does not give its cost (a usage booked by other means)."""
        try:
            receipt = explain(
                self._book(conn, row.price_version),
                PriceTerms(
                    row.tool,
                    row.provider,
                    row.model,
                    row.quantities,
                    microseconds(row.occurred_at),
                    row.workspace_id,
                ),
            )
        except (PriceMissingError, OutOfRangeError):
            return None
        answer: dict[str, Any] = msgspec.to_builtins(receipt)
        return answer if parse_usd(answer["cost"]) == row.cost else None

    def _book(self, conn: Connection[Any], revision: int) -> PriceBook:
        with self._lock:
            book = self._books.get(revision)
            if book is None:
                book = self._books[revision] = load_book(conn, revision)
                if len(self._books) > REVISIONS_KEPT:
                    self._books.popitem(last=False)
            self._books.move_to_end(revision)
            return book
