"""All parts of a running worker, put together: what the bootstep starts and stops."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from taximeter_worker.background.booking_watch import BOOKING_WATCH_SECONDS, BookingWatch
from taximeter_worker.background.flag_audit import FLAG_AUDIT_SECONDS, FlagAudit
from taximeter_worker.background.flag_watch import FLAG_WATCH_SECONDS, FlagWatch
from taximeter_worker.background.ledger_gauges import LedgerGauges
from taximeter_worker.background.notice_watch import NOTICE_WATCH_SECONDS, NoticeWatch
from taximeter_worker.background.periodic_thread import PeriodicThread
from taximeter_worker.background.price_watch import PRICE_WATCH_SECONDS, PriceWatch
from taximeter_worker.background.upkeep import UPKEEP_SECONDS, Upkeep
from taximeter_worker.consume.batch import Booker, Prices, hold_terms_of
from taximeter_worker.consume.brokers.source import make_source
from taximeter_worker.consume.canary import Canary
from taximeter_worker.consume.consumer import Consumer
from taximeter_worker.errors import MetricsPortTakenError
from taximeter_worker.flags.writer import FlagWriter
from taximeter_worker.metrics import Endpoint, Metrics
from taximeter_worker.settings import Settings

log = structlog.get_logger(__name__)

THREAD_JOIN_SECONDS = 2.0
LAST_SECONDS = 3.0
"""Of the drain time, at most so much is kept for ending after the last batch."""


class Runtime:
    """The usage consumer and everything it needs, within one process.

    Args:
        settings: the worker's settings.
        prices_changed: called when the price book has changed, from a thread of its own.
        metrics: of this process; None: new ones.
        notices_due: called, from a thread of its own, while there are notices to deliver.
    """

    def __init__(
        self,
        settings: Settings,
        prices_changed: Callable[[], None],
        metrics: Metrics | None = None,
        *,
        notices_due: Callable[[], None] = lambda: None,
    ) -> None:
        self.drain_seconds = settings.drain_seconds
        self._encrypts = settings.masters is not None
        self.metrics = metrics or Metrics()
        self.prices = Prices()
        self.writer = FlagWriter(settings.flags_redis_url, settings.redis_timeout_seconds)
        self.canary = Canary(settings.broker_sdk_url, settings.canary_seconds, self.metrics, self.prices.clock)
        failed = self.metrics.thread_failed
        url = settings.database_url
        notice_watch = PeriodicThread("notice watch", url, NOTICE_WATCH_SECONDS, NoticeWatch(notices_due), failed)
        self.booker = Booker(
            settings,
            self.prices,
            self.writer,
            self.metrics,
            is_canary=self.canary.is_one,
            noticed=notice_watch.wake,
        )
        self.endpoint = Endpoint(self.metrics, settings.metrics_host, settings.metrics_port)
        gauges = LedgerGauges(settings.metrics_workspaces, self.metrics.overdrawn)
        self.metrics.registry.register(gauges)
        source = make_source(settings, self.canary.routing_key if settings.canary_seconds else None)
        self._consumer = Consumer(settings, self.booker, self.metrics, ready=self.prices.loaded, source=source)
        watch = PriceWatch(self.prices, self.metrics, self.writer, prices_changed)
        flag_watch = FlagWatch(self.writer, self.metrics, hold_terms_of(settings))
        self._threads = [
            PeriodicThread("price watch", url, PRICE_WATCH_SECONDS, watch, failed),
            PeriodicThread("booking watch", url, BOOKING_WATCH_SECONDS, BookingWatch(self.booker.running), failed),
            PeriodicThread("flag watch", url, FLAG_WATCH_SECONDS, flag_watch, failed),
            PeriodicThread("flag audit", url, FLAG_AUDIT_SECONDS, FlagAudit(self.writer, self.metrics), failed),
            notice_watch,
            PeriodicThread("upkeep", url, UPKEEP_SECONDS, Upkeep(gauges, self.endpoint, self.metrics), failed),
            PeriodicThread("gauges", settings.metrics_database_url or url, UPKEEP_SECONDS, gauges.refresh, failed),
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
        except MetricsPortTakenError as error:
            log.warning("metrics_not_served", why=str(error))
        for thread in self._threads:
            thread.start()
        self._consumer.start()
        self.canary.start()

    def stop(self) -> None:
        """Finish what is in flight and stop everything, within the drain time.

        Background threads may be used until the batches in flight are booked, so they end last; one that hangs, on a
        PostgreSQL that does not answer, is left behind.
        """
        deadline = time.monotonic() + self.drain_seconds
        self.canary.stop()
        self._consumer.stop(self.drain_seconds - min(LAST_SECONDS, self.drain_seconds / 2))
        for thread in self._threads:
            thread.stop()
        for thread in self._threads:
            thread.join(max(0.0, min(THREAD_JOIN_SECONDS, deadline - time.monotonic() - 1)))
        self.endpoint.stop()
        self.writer.close()
