"""The deliverer: leases lanes, sends what is next in each, notes what became of it. Any number may run at once."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Final

import structlog
from psycopg import Connection

from taximeter_db.connect import NOTICES, connection
from taximeter_db.errors import MasterKeyError
from taximeter_db.notices import deliveries, groups, targets
from taximeter_db.notices.addresses import Network
from taximeter_db.notices.deliveries import Delivery, Lane, Try
from taximeter_db.notices.groups import Reading
from taximeter_worker import failpoints
from taximeter_worker.metrics import Metrics
from taximeter_worker.notices import apprise_service, webhook
from taximeter_worker.settings import Settings

log = structlog.get_logger(__name__)

SENDERS_MAX: Final = 32
"""How many notices are sent at once."""
RUN_SECONDS: Final = 5.0
"""For this long one run takes on more; the next goes on."""
_LOOK_SECONDS: Final = 0.1

_Sending = dict[Future[Try], Delivery]


class Deliverer:
    """Delivers what is due. Of several runs in one process at once, one does the work."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._running = threading.Lock()

    def run(self) -> int:
        """Deliver for some seconds, or until nothing is due; returns how many tries were made.

        Raises:
            psycopg.Error: The database went away. What was sent and not noted is sent again.
        """
        if not self._running.acquire(blocking=False):
            return 0
        try:
            with (
                connection(self._settings.database_url, profile=NOTICES) as conn,
                ThreadPoolExecutor(SENDERS_MAX, thread_name_prefix="taximeter-notice") as pool,
            ):
                return _Run(conn, pool, self._settings, self._metrics).run()
        finally:
            self._running.release()


class _Run:
    """One run: the connection is this thread's alone, the pool only sends."""

    def __init__(self, conn: Connection[Any], pool: ThreadPoolExecutor, settings: Settings, metrics: Metrics) -> None:
        self._conn = conn
        self._pool = pool
        self._reading = Reading(settings.masters, _warn_unreadable)
        self._networks: Collection[Network] = settings.notice_networks
        self._metrics = metrics
        self._sending: _Sending = {}
        self._ends = time.monotonic() + RUN_SECONDS

    def run(self) -> int:
        tries = 0
        while True:
            if self._goes_on and len(self._sending) < SENDERS_MAX:
                lanes = deliveries.claim(self._conn, SENDERS_MAX - len(self._sending))
                self._send(groups.first_of(self._conn, lanes, self._reading))
            if not self._sending:
                return tries
            done, _ = wait(self._sending, _LOOK_SECONDS, FIRST_COMPLETED)
            if done:
                tries += len(done)
                self._finish([(self._sending.pop(future), future.result()) for future in done])

    @property
    def _goes_on(self) -> bool:
        return time.monotonic() < self._ends

    def _send(self, following: Sequence[Delivery]) -> None:
        for delivery in following:
            self._sending[self._pool.submit(send, delivery, self._networks)] = delivery

    def _finish(self, tried: Sequence[tuple[Delivery, Try]]) -> None:
        for delivery, end in tried:
            failpoints.hit("after_notice_sent")
            self._metrics.notice_tried(delivery.channel, end.outcome)
        self._send(groups.finish(self._conn, tried, self._reading, goes_on=self._goes_on))


def _warn_unreadable(lane: Lane, error: MasterKeyError) -> None:
    log.warning("notice_target_unreadable", target=lane.target_id, why=str(error))


def send(delivery: Delivery, networks: Collection[Network]) -> Try:
    """Send a notice once, by its channel. Never raises for what the other side does."""
    failpoints.hit("before_notice_sent")
    if delivery.channel == targets.WEBHOOK:
        return webhook.send(delivery, networks, dt.datetime.now(dt.UTC))
    return apprise_service.send(delivery, networks)
