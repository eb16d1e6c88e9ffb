from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from taximeter import Meter
from taximeter.prometheus import MeterCollector


def test_a_scrape_shows_the_spool(broker: Any, make_meter: Callable[..., Meter]) -> None:
    registry = CollectorRegistry()
    meter = make_meter(broker_url="amqp://guest:guest@127.0.0.1:1/")
    registry.register(MeterCollector(meter))
    for _ in range(3):
        meter.record("acme", tool="chat", quantities={"requests": 1})
    text = generate_latest(registry).decode()
    assert "taximeter_spool_events 3.0" in text
    assert "taximeter_producer_events_recorded_total 3.0" in text
    assert "taximeter_producer_events_confirmed_total 0.0" in text
    assert registry.get_sample_value("taximeter_spool_bytes") == meter.stats().spooled_bytes
    age = registry.get_sample_value("taximeter_spool_oldest_age_seconds")
    assert age is not None
    assert 0 <= age < 60
    meter.close(timeout=0)
    second = make_meter(broker_url=broker.url)
    second.flush(20)
    other = CollectorRegistry()
    other.register(MeterCollector(second))
    assert other.get_sample_value("taximeter_producer_events_confirmed_total") == 3
    assert other.get_sample_value("taximeter_spool_events") == 0


def test_the_sdk_itself_imports_nothing_heavy() -> None:
    script = "import sys, taximeter; print([m for m in ('prometheus_client', 'redis', 'kombu') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
