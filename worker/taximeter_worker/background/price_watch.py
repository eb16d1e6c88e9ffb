"""Keeps the price book in use up to date."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from psycopg import Connection

from taximeter.pricing.published import PublishedBook, pack
from taximeter_db.prices.store import current_revision
from taximeter_worker.consume.batch import Prices
from taximeter_worker.flags.writer import FlagWriter
from taximeter_worker.metrics import Metrics
from taximeter_worker.pricing.loading import load_book
from taximeter_worker.pricing.publishing import publish_book

log = structlog.get_logger(__name__)

PRICE_WATCH_SECONDS = 0.5


class PriceWatch:
    """Puts a changed price book into use, and publishes it for tools; ``changed`` is called after each change but the first."""

    def __init__(self, prices: Prices, metrics: Metrics, writer: FlagWriter, changed: Callable[[], None]) -> None:
        self._prices = prices
        self._metrics = metrics
        self._writer = writer
        self._changed = changed
        self._published: PublishedBook | None = None

    def __call__(self, conn: Connection[Any]) -> None:
        """One look.

        Raises:
            FlagsUnavailableError: The book is in use, and Redis does not take it.
        """
        self._load(conn)
        book = self._prices.book
        if book is None or not self._writer.available:
            return
        if self._published is None or self._published.revision != book.revision:
            self._published = pack(book)
        if self._writer.call(publish_book, self._published):
            log.info("price_book_published", revision=book.revision)

    def _load(self, conn: Connection[Any]) -> None:
        self._prices.clock.refresh(conn)
        before = self._prices.book
        if before is not None and current_revision(conn) == before.revision:
            self._metrics.answered("database")
            return
        book = load_book(conn)
        self._prices.use(book)
        self._metrics.price_revision.set(book.revision)
        self._metrics.answered("database")
        log.info("price_book_loaded", revision=book.revision)
        if before is not None:
            self._changed()
