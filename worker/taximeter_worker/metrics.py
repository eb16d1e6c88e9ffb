"""What Prometheus sees of one worker process. Every metric is described in docs/metrics.md; a test holds the two together.

Amounts are summed as integers and become a float only in the sample that is handed to Prometheus, which knows nothing else.
"""

from __future__ import annotations

import bisect
import functools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from taximeter_db.ledger.events import Outcome, Usage
from taximeter_db.money import PICO_PER_USD
from taximeter_worker.errors import MetricsPortTakenError

log = structlog.get_logger(__name__)

# A gauge beside each counter that says when it was born: three series where one is read.
disable_created_metrics()  # type: ignore[no-untyped-call]

LAG_BOUNDS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 86400)
_LAG_BOUNDS = [int(bound * 1_000_000) for bound in LAG_BOUNDS_SECONDS]
ANSWER_SECONDS_MAX = 5.0
"""A server that has not answered for this long counts as away; each is asked at least once a second."""
BATCH_BOUNDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000)
DURATION_BOUNDS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class _Totals(Collector):
    """Exact cost, and the lag of every event without a call for each (a histogram's ``observe`` costs a microsecond)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cost = 0
        self._buckets = [0] * (len(LAG_BOUNDS_SECONDS) + 1)
        self._lag_microseconds = 0

    def add(self, cost: int, usages: Sequence[Usage], now: int) -> None:
        lags = [now - usage.occurred_at for usage in usages]
        first, last = (bisect.bisect_left(_LAG_BOUNDS, lag) for lag in (min(lags, default=0), max(lags, default=0)))
        with self._lock:
            self._cost += cost
            self._lag_microseconds += sum(lags)
            if first == last:  # as with most batches
                self._buckets[first] += len(lags)
                return
            lags.sort()
            ends = [bisect.bisect_right(lags, bound) for bound in _LAG_BOUNDS]
            for index, (start, end) in enumerate(zip([0, *ends], [*ends, len(lags)], strict=True)):
                self._buckets[index] += end - start

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            cost, buckets, lag = self._cost, list(self._buckets), self._lag_microseconds
        yield CounterMetricFamily(
            "taximeter_cost_usd", "Cost of the usages this worker booked.", value=cost / PICO_PER_USD
        )
        running, cumulative = 0, []
        for bound, count in zip([*map(float, LAG_BOUNDS_SECONDS), float("inf")], buckets, strict=True):
            running += count
            cumulative.append((f"{bound:g}".replace("inf", "+Inf"), running))
        yield HistogramMetricFamily(
            "taximeter_event_lag_seconds",
            "From the time in the event to its booking.",
            buckets=cumulative,
            sum_value=lag / 1_000_000,
        )


class Metrics:
    """The metrics of one worker. Tests make as many as they like: nothing is global."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(namespace="taximeter", registry=registry)
        self._totals = _Totals()
        registry.register(self._totals)

        def counter(name: str, text: str, labels: Iterable[str] = ()) -> Counter:
            return Counter(name, text, list(labels), registry=registry)

        def gauge(name: str, text: str, labels: Iterable[str] = ()) -> Gauge:
            return Gauge(name, text, list(labels), registry=registry)

        self._events = counter("taximeter_events_total", "Events by kind and outcome.", ["kind", "outcome"])
        self._quarantined = counter("taximeter_quarantined_total", "What was quarantined, by reason.", ["reason"])
        self.messages = counter("taximeter_messages_total", "Broker messages received, by queue.", ["queue"])
        self.batch_events = Histogram(
            "taximeter_batch_events", "Usages in one transaction.", buckets=BATCH_BOUNDS, registry=registry
        )
        self.batch_seconds = Histogram(
            "taximeter_batch_duration_seconds",
            "Time that one transaction took.",
            buckets=DURATION_BOUNDS_SECONDS,
            registry=registry,
        )
        self.receive_lag = Histogram(
            "taximeter_receive_lag_seconds",
            "From the receipt of a batch's oldest message to its acknowledgement.",
            buckets=LAG_BOUNDS_SECONDS,
            registry=registry,
        )
        self.flag_flips = counter("taximeter_flag_flips_total", "Flags that changed: enabled or status.")
        self.flag_failures = counter("taximeter_flag_write_failures_total", "Workspaces whose flag Redis did not take.")
        self.flag_drift = counter(
            "taximeter_flag_drift_total",
            "Flags that differed from the ledger without a debt, and were repaired.",
            ["kind"],
        )
        self.flag_rebuilds = counter("taximeter_flag_rebuilds_total", "Rebuilds of all flags that this worker did.")
        self.flag_memory = gauge("taximeter_flag_memory_ratio", "Part of the flag Redis's maxmemory that is used.")
        self.flags_left_out = counter(
            "taximeter_flags_left_out_total",
            "Flags of new, enabled workspaces not written because Redis is nearly full.",
        )
        self._count_tasks(counter, gauge)
        self.database_errors = counter("taximeter_database_errors_total", "Failed attempts to book a batch.")
        self._thread_failures = counter(
            "taximeter_thread_failures_total", "Unforeseen failures after which a thread began again.", ["thread"]
        )
        self.reconnects = counter("taximeter_broker_reconnects_total", "Lost connections to the broker.")
        self.broker_connected = gauge("taximeter_broker_connected", "1 while this worker receives from the broker.")
        self._queue = gauge("taximeter_queue_messages", "Messages waiting in the broker, by queue.", ["queue"])
        self._queue_down = gauge("taximeter_queue_down", "1 while the broker cannot serve the queue.", ["queue"])
        self.held_messages = gauge("taximeter_held_messages", "Messages received and not yet acknowledged.")
        self.price_revision = gauge("taximeter_price_book_revision", "Revision of the price book in use.")
        self._show_servers(gauge)
        self.partitions_ahead = gauge(
            "taximeter_partitions_ahead_seconds", "For how long from now on the usage log has partitions."
        )
        self._overdraft_worst = 0
        gauge(
            "taximeter_overdraft_worst_usd", "The deepest that a balance was below its minimum since this worker began."
        ).set_function(lambda: self._overdraft_worst / PICO_PER_USD)
        self._canary_at: float | None = None
        gauge("taximeter_canary_age_seconds", "Since a canary last came through broker and consumer.").set_function(
            lambda: max(0.0, time.monotonic() - at) if (at := self._canary_at) is not None else 0.0
        )
        self._canary_trip = gauge("taximeter_canary_trip_seconds", "From the newest canary's sending to its arrival.")
        self._oldest: float | None = None
        gauge(
            "taximeter_oldest_unbooked_seconds", "Age of the oldest message received and not yet booked."
        ).set_function(lambda: max(0.0, time.monotonic() - oldest) if (oldest := self._oldest) is not None else 0.0)

    def _count_tasks(self, counter: Callable[..., Counter], gauge: Callable[..., Gauge]) -> None:
        """How Celery's tasks end, and the tries of the one that delivers notices."""
        self._notice_tries = counter(
            "taximeter_notice_tries_total", "Tries to deliver a notice, by channel and outcome.", ["channel", "outcome"]
        )
        self._task_runs = counter("taximeter_task_runs_total", "Celery tasks by name and outcome.", ["task", "outcome"])
        self._task_success = gauge(
            "taximeter_task_last_success_timestamp_seconds", "When the task last succeeded here, Unix time.", ["task"]
        )
        self._task_interval = gauge("taximeter_task_interval_seconds", "How often the beat sends the task.", ["task"])

    def _show_servers(self, gauge: Callable[[str, str], Gauge]) -> None:
        """Whether PostgreSQL and Redis answer, and whether a transaction ends."""
        self._answered: dict[str, float] = {}
        for server, text in (("database", "PostgreSQL"), ("redis", "the Redis of the flags")):
            gauge(f"taximeter_{server}_answers", f"1 while {text} answers this worker.").set_function(
                functools.partial(self._answers, server)
            )
        self._booking_seconds = gauge(
            "taximeter_booking_seconds", "How long the transaction that books has run so far."
        )

    def booked(self, outcome: Outcome, usages: Sequence[Usage], seconds: float, now: int) -> None:
        """Count a committed transaction; ``now`` in microseconds since the Unix epoch."""
        for kind, result, count in (
            ("usage", "booked", outcome.usages_booked),
            ("usage", "duplicate", outcome.usages_duplicate),
            ("payment", "booked", outcome.payments_booked),
            ("payment", "duplicate", outcome.payments_duplicate),
            ("any", "quarantined", outcome.rejected.total()),
        ):
            if count:
                self._events.labels(kind, result).inc(count)
        for reason, count in outcome.rejected.items():
            self._quarantined.labels(reason).inc(count)
        self.batch_events.observe(len(usages))
        self.batch_seconds.observe(seconds)
        self._totals.add(outcome.cost, usages, now)
        self.overdrawn(max([state.minimum - state.balance for state in outcome.states.values()], default=0))

    def overdrawn(self, pico: int) -> None:
        """Note how far a balance is below its minimum, if it is."""
        self._overdraft_worst = max(self._overdraft_worst, pico)

    def answered(self, server: str) -> None:
        """Note that ``database`` or ``redis`` has answered."""
        self._answered[server] = time.monotonic()

    def _answers(self, server: str) -> float:
        at = self._answered.get(server)
        return 1.0 if at is not None and time.monotonic() - at < ANSWER_SECONDS_MAX else 0.0

    def watch_bookings(self, seconds: Callable[[], float]) -> None:
        """Show how long the oldest running transaction has taken."""
        self._booking_seconds.set_function(seconds)

    def thread_failed(self, thread: str) -> None:
        """Count a thread whose work had to be started again."""
        self._thread_failures.labels(thread).inc()

    def notice_tried(self, channel: str, outcome: str) -> None:
        """Count a try to deliver a notice."""
        self._notice_tries.labels(channel, outcome).inc()

    def expect_task(self, name: str, every_seconds: float | None) -> None:
        """From now on the task is late when it does not succeed."""
        for outcome in ("succeeded", "failed", "locked"):
            self._task_runs.labels(name, outcome)
        if every_seconds is not None:
            self._task_interval.labels(name).set(every_seconds)
            self._task_success.labels(name).set_to_current_time()

    def task_ended(self, name: str, outcome: str) -> None:
        """Count the end of a task: ``succeeded``, ``failed`` or ``locked`` (another worker is at it)."""
        self._task_runs.labels(name, outcome).inc()
        if outcome == "succeeded":
            self._task_success.labels(name).set_to_current_time()

    def expect_canaries(self) -> None:
        """From now on the canary's age grows."""
        self._canary_at = time.monotonic()

    def canary_arrived(self, trip_microseconds: int | None) -> None:
        """Note a canary that came through; how long that took, where it came by the way of usage."""
        self._canary_at = time.monotonic()
        if trip_microseconds is not None:
            self._canary_trip.set(trip_microseconds / 1_000_000)

    def holding(
        self,
        messages: int,
        oldest_received_at: float | None,
        depth: Mapping[str, int],
        down: frozenset[str] = frozenset(),
    ) -> None:
        """Note what is received and not acknowledged, and what waits in the broker."""
        self.held_messages.set(messages)
        self._oldest = oldest_received_at
        for queue, count in list(depth.items()):
            self._queue.labels(queue).set(count)
        for queue in (*depth, *down):
            self._queue_down.labels(queue).set(queue in down)


class Endpoint:
    """``/metrics`` over HTTP."""

    def __init__(self, metrics: Metrics, host: str, port: int) -> None:
        self._metrics = metrics
        self._host = host
        self._port = port
        self._server: Any = None

    @property
    def serving(self) -> bool:
        """Whether it listens (or never shall)."""
        return self._server is not None or self._port == 0

    def start(self) -> None:
        """Listen.

        Raises:
            MetricsPortTakenError: another process has the port.
        """
        if self.serving:
            return
        try:
            self._server, _ = start_http_server(self._port, self._host, registry=self._metrics.registry)
        except (OSError, TypeError, UnicodeError) as error:  # the latter for a host that cannot be encoded
            why = getattr(error, "strerror", None) or type(error).__name__
            raise MetricsPortTakenError(
                f"Metrics cannot be served on {ascii(self._host)[1:-1]}:{self._port}: {why}. Give each worker of a "
                "machine its own TAXIMETER_METRICS_PORT. Booking goes on, and the port is tried again."
            ) from error
        log.info("metrics_served", url=f"http://{self._host}:{self._port}/metrics")

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
