"""Metrics of a `Meter` for Prometheus. Needs the ``prometheus-client`` package, which the SDK does not depend on.

from prometheus_client import REGISTRY
from taximeter.prometheus import MeterCollector

REGISTRY.register(MeterCollector(meter))
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from taximeter.meter import Meter


class MeterCollector(Collector):
    """Reads `Meter.stats` on every scrape.

    Metrics: ``taximeter_spool_events``, ``taximeter_spool_bytes``, ``taximeter_spool_oldest_age_seconds`` and the
    counters ``taximeter_producer_events_recorded_total``, ``…_published_total``, ``…_confirmed_total`` and
    ``taximeter_producer_publish_failures_total``, ``taximeter_producer_events_set_aside_total``.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def describe(self) -> list[Metric]:
        """Say nothing: registering must not scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        stats = self._meter.stats()
        yield GaugeMetricFamily(
            "taximeter_spool_events", "Events in the spool that the broker has not confirmed.", stats.spooled_events
        )
        yield GaugeMetricFamily("taximeter_spool_bytes", "Bytes of these events.", stats.spooled_bytes)
        yield GaugeMetricFamily(
            "taximeter_spool_oldest_age_seconds",
            "Age of the oldest of these events, 0 if there are none.",
            stats.oldest_unpublished_seconds or 0.0,
        )
        yield CounterMetricFamily(
            "taximeter_producer_events_recorded", "Events accepted by this process.", stats.recorded
        )
        yield CounterMetricFamily(
            "taximeter_producer_events_published", "Events sent to the broker, repetitions included.", stats.published
        )
        yield CounterMetricFamily(
            "taximeter_producer_events_confirmed", "Events that the broker has confirmed.", stats.confirmed
        )
        yield CounterMetricFamily(
            "taximeter_producer_publish_failures",
            "Failed connections and messages that the broker did not take.",
            stats.failures,
        )
        yield CounterMetricFamily(
            "taximeter_producer_events_set_aside",
            "Events that the broker refuses for their size.",
            stats.set_aside,
        )
