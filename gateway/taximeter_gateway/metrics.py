"""What Prometheus sees of one gateway process. Every metric is described in docs/metrics.md; a test holds the two together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ACCEPTED: Final = "accepted"
REFUSED: Final = "refused"
UNCONFIRMED: Final = "unconfirmed"


class Waiting:
    """Counts the blocks that are entered and not left."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *_error: object) -> None:
        self.count -= 1


class Metrics:
    """The gateway's metrics, in a registry of their own.

    Args:
        spooled_events: How many events wait in the spool.
        held_bytes: How many bytes of bodies are in memory.
    """

    def __init__(self, spooled_events: Callable[[], int], held_bytes: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "taximeter_gateway_requests_total",
            "Requests, by path and status of the answer.",
            ["path", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "taximeter_gateway_request_seconds",
            "From the head of a request to its answer.",
            ["path"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.events = Counter(
            "taximeter_gateway_events_total", "Events, by what became of them.", ["outcome"], registry=self.registry
        )
        self.waiting = Waiting()
        self._gauge("taximeter_gateway_requests_waiting", "Requests that are being served.", lambda: self.waiting.count)
        self._gauge("taximeter_gateway_spooled_events", "Events without the broker's confirm.", spooled_events)
        self._gauge("taximeter_gateway_held_bytes", "Bytes of bodies in memory.", held_bytes)
        for outcome in (ACCEPTED, REFUSED, UNCONFIRMED):
            self.events.labels(outcome)

    def _gauge(self, name: str, text: str, value: Callable[[], Any]) -> None:
        Gauge(name, text, registry=self.registry).set_function(value)
