"""The price book in a tool's process: read from Redis when it is first asked for, and again when it has changed.

A look at its tag costs a round trip, at most twice a second and within the call that asks; in between a price is a matter
of memory. While Redis does not answer, the last book stands in for the grace time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from taximeter import names
from taximeter.addresses import REDIS_URL_VARIABLE
from taximeter.errors import ClosedError, ConfigurationError, PricesUnavailableError
from taximeter.events import check_moment, check_names, exact_quantities
from taximeter.flags.cache import FlagSettings
from taximeter.redis_connection import connection_pool

if TYPE_CHECKING:
    from taximeter.pricing.price_book import PriceBook

LOOK_SECONDS: Final = 0.5
"""How often a changed book is looked for; workers look as often."""
FIRST_BOOK_SECONDS: Final = 1.0
"""Longest wait for Redis while there is no book yet."""


class PriceCache:
    """The newest book that is known. Safe to use from several threads."""

    def __init__(self, settings: FlagSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._client: Any = None
        self._book: PriceBook | None = None
        self._tag = ""
        self._confirmed_at = 0.0
        self._look_at = 0.0

    def book(self) -> PriceBook:
        """The book to price with now.

        Raises:
            PricesUnavailableError: There is none, or Redis has not answered for longer than the grace time.
        """
        book = self._book
        if book is not None and time.monotonic() < self._look_at:
            return book
        # Whoever comes while another thread looks is answered by the book that is there.
        if not self._lock.acquire(blocking=book is None):
            return self._within_grace(book, None)
        try:
            if self._book is None or time.monotonic() >= self._look_at:
                return self._look()
            return self._book
        finally:
            self._lock.release()

    def close(self) -> None:
        """Let go of the connection."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _look(self) -> PriceBook:
        import redis

        try:
            book = self._read()
        except (redis.RedisError, OSError, PricesUnavailableError) as error:
            self.close()
            book = self._within_grace(self._book, error)
        else:
            self._confirmed_at = time.monotonic()
        self._look_at = time.monotonic() + LOOK_SECONDS
        return book

    def _read(self) -> PriceBook:
        client = self._client or self._connect(FIRST_BOOK_SECONDS if self._book is None else None)
        tag = client.hget(names.PRICES, "tag")
        if tag is None:
            raise PricesUnavailableError("no worker has published the price book in Redis yet")
        if self._book is not None and tag.decode() == self._tag:
            return self._book
        from taximeter.pricing.published import unpack  # a tool that never asks for a price does not load the book

        fields: Mapping[bytes, bytes] = client.hgetall(names.PRICES)
        book = unpack(fields.get(b"book", b""))
        if self._book is None:  # what waits from now on is a caller who has been answered before
            self.close()
        self._book, self._tag = book, fields.get(b"tag", b"").decode()
        return book

    def _connect(self, timeout_seconds: float | None) -> Any:
        import redis

        pool = connection_pool(
            self._settings.redis_url,
            REDIS_URL_VARIABLE,
            timeout_seconds=timeout_seconds or self._settings.timeout_seconds,
            protocol=2,
        )
        self._client = redis.Redis.from_pool(pool)
        return self._client

    def _within_grace(self, book: PriceBook | None, error: Exception | None) -> PriceBook:
        if book is not None and time.monotonic() - self._confirmed_at <= self._settings.grace_seconds + LOOK_SECONDS:
            return book
        if isinstance(error, PricesUnavailableError):
            raise error
        raise PricesUnavailableError(f"the price book cannot be read from Redis: {type(error).__name__}") from error


class Prices:
    """What a `taximeter.Meter` knows of prices."""

    _closed: bool
    _flag_settings: FlagSettings | None
    _lock: threading.RLock
    _prices: PriceCache | None = None
    _clock: Callable[[], int] = staticmethod(time.time_ns)

    def price(
        self,
        workspace_id: str,
        *,
        tool: str,
        quantities: Mapping[str, int | float | Decimal],
        provider: str | None = None,
        model: str | None = None,
        time: datetime | None = None,
    ) -> Decimal:
        """What a usage costs in USD: exactly what the booking will charge for it at the prices that hold.

        Answered from memory. A changed price book is looked for at most twice a second, which waits for Redis for at most
        ``timeout_seconds``, and for a second where there is no book yet. The arguments are those of `record`.

        Raises:
            InvalidEventError: The usage could never be booked.
            PriceMissingError: Nothing prices a unit of it: its event would wait in quarantine.
            OutOfRangeError: It costs more than the ledger can hold.
            PricesUnavailableError: There is no price book in Redis, or Redis has not answered for ``grace_seconds``.
            ConfigurationError: The meter has no Redis address.
            ClosedError: The meter is closed.
        """
        check_names(workspace_id, tool, provider, model)
        exact = exact_quantities(quantities)
        at_us = self._clock() // 1000 if time is None else _microseconds(check_moment(time))
        book = (self._prices or self._price_cache()).book()
        return book.price_in_usd(tool, provider or None, model or None, exact, at_us, workspace_id)

    def _price_cache(self) -> PriceCache:
        with self._lock:
            if self._closed:
                raise ClosedError("the meter is closed; make a new one")
            if self._flag_settings is None:
                raise ConfigurationError(
                    f"this meter cannot price: it has no Redis address. Set {REDIS_URL_VARIABLE} or pass redis_url"
                )
            if self._prices is None:
                self._prices = PriceCache(self._flag_settings)
            return self._prices

    def _close_prices(self) -> None:
        prices, self._prices = self._prices, None
        if prices is not None:
            prices.close()


def _microseconds(moment: datetime) -> int:
    from taximeter.pricing.price_index import microseconds

    return microseconds(moment)
