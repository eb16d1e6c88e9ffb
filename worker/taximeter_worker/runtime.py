"""All parts of a running worker, put together: what the bootstep starts and stops."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from taximeter_worker.booker import Booker, Prices
from taximeter_worker.canary import Canary
from taximeter_worker.chores import (
    FLAG_WATCH_SECONDS,
    PRICE_WATCH_SECONDS,
    UPKEEP_SECONDS,
    Chore,
    FlagWatch,
    PriceWatch,
    Upkeep,
)
from taximeter_worker.consumer import Consumer
from taximeter_worker.errors import MetricsPortTaken
from taximeter_worker.flags import FlagWriter
from taximeter_worker.ledger_gauges import LedgerGauges
from taximeter_worker.metrics import Endpoint, Metrics
from taximeter_worker.settings import Settings

log = structlog.get_logger(__name__)

CHORE_JOIN_SECONDS = 2.0


class Runtime:
    """The usage consumer and everything it needs, within one process.

    Args:
        settings: the worker's settings.
        prices_changed: called when the price book has changed, from a thread of its own.
    """

    def __init__(self, settings: Settings, prices_changed: Callable[[], None]) -> None:
        self._encrypts = settings.masters is not None
        self.metrics = Metrics()
        self.prices = Prices()
        self.writer = FlagWriter(settings.flags_redis_url, settings.redis_timeout_seconds)
        self.canary = Canary(settings.broker_redis_url, settings.canary_seconds, self.metrics)
        self.booker = Booker(settings, self.prices, self.writer, self.metrics, is_canary=self.canary.is_one)
        self.endpoint = Endpoint(self.metrics, settings.metrics_host, settings.metrics_port)
        gauges = LedgerGauges(settings.metrics_workspaces)
        self.metrics.registry.register(gauges)
        self._consumer = Consumer(settings, self.booker, self.metrics, ready=self.prices.loaded)
        url = settings.database_url
        watch = PriceWatch(self.prices, self.metrics, prices_changed)
        self._chores = [
            Chore("price watch", url, PRICE_WATCH_SECONDS, watch),
            Chore("flag watch", url, FLAG_WATCH_SECONDS, FlagWatch(self.writer)),
            Chore("upkeep", url, UPKEEP_SECONDS, Upkeep(gauges, self.endpoint)),
            Chore("gauges", settings.metrics_database_url or url, UPKEEP_SECONDS, gauges.refresh),
        ]

    def start(self) -> None:
        """Start all threads and return. What is missing (database, broker, Redis) is waited for in the background."""
        if not self._encrypts:
            log.warning(
                "payloads_not_encrypted",
                hint="inputs and outputs are stored compressed only: set TAXIMETER_MASTER_KEY or TAXIMETER_MASTER_KEY_FILE",
            )
        try:
            self.endpoint.start()
        except MetricsPortTaken as error:
            log.warning("metrics_not_served", why=str(error))
        for chore in self._chores:
            chore.start()
        self._consumer.start()
        self.canary.start()

    def stop(self) -> None:
        """Finish what is in flight, within the drain time, and stop everything."""
        self.canary.stop()
        self._consumer.stop()
        for chore in self._chores:
            chore.stop()
        for chore in self._chores:
            chore.join(CHORE_JOIN_SECONDS)
        self.endpoint.stop()
        self.writer.close()
