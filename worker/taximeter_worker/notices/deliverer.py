"""The deliverer: leases lanes, sends what is next in each, notes what became of it. Any number may run at once."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Collection
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Final

import structlog
from psycopg import Connection

from taximeter_db.connect import connection
from taximeter_db.crypto.master_keys import MasterKeys
from taximeter_db.errors import MasterKeyError
from taximeter_db.notices import deliveries, targets
from taximeter_db.notices.addresses import Network
from taximeter_db.notices.deliveries import Delivery, Lane, Try
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
                connection(self._settings.database_url) as conn,
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
        self._masters: MasterKeys | None = settings.masters
        self._networks: Collection[Network] = settings.notice_networks
        self._metrics = metrics
        self._sending: _Sending = {}
        self._ends = time.monotonic() + RUN_SECONDS

    def run(self) -> int:
        tries = 0
        while True:
            if self._goes_on and len(self._sending) < SENDERS_MAX:
                for lane in deliveries.claim(self._conn, SENDERS_MAX - len(self._sending)):
                    self._start_next(lane)
            if not self._sending:
                return tries
            done, _ = wait(self._sending, _LOOK_SECONDS, FIRST_COMPLETED)
            for future in done:
                tries += 1
                self._finish(self._sending.pop(future), future.result())

    @property
    def _goes_on(self) -> bool:
        return time.monotonic() < self._ends

    def _start_next(self, lane: Lane) -> None:
        try:
            delivery = deliveries.next_of(self._conn, lane, self._masters)
        except MasterKeyError as error:
            log.warning("notice_target_unreadable", target=lane.target_id, why=str(error))
            return
        if delivery is not None:
            self._sending[self._pool.submit(send, delivery, self._networks)] = delivery

    def _finish(self, delivery: Delivery, tried: Try) -> None:
        failpoints.hit("after_notice_sent")
        self._metrics.notice_tried(delivery.channel, tried.outcome)
        if deliveries.finish(self._conn, delivery, tried):
            if self._goes_on:
                self._start_next(delivery.lane)
            else:
                deliveries.give_back(self._conn, delivery.lane)


def send(delivery: Delivery, networks: Collection[Network]) -> Try:
    """Send a notice once, by its channel. Never raises for what the other side does."""
    failpoints.hit("before_notice_sent")
    if delivery.channel == targets.WEBHOOK:
        return webhook.send(delivery, networks, dt.datetime.now(dt.UTC))
    return apprise_service.send(delivery, networks)
