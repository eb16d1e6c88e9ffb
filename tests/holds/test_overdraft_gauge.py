"""What operators see of the overdraft: the deepest now, and the worst since a worker began."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import psycopg
from prometheus_client import CollectorRegistry, generate_latest

from taximeter import names
from taximeter_db.connect import booking_connection, connect
from taximeter_worker.background.ledger_gauges import LedgerGauges
from taximeter_worker.background.price_watch import PriceWatch
from taximeter_worker.consume.batch import Booker, Prices
from taximeter_worker.consume.brokers.source import Message
from taximeter_worker.flags.writer import FlagWriter
from taximeter_worker.metrics import Metrics
from taximeter_worker.settings import Settings
from workers import Ledger, payment, usage


def _shown(registry: CollectorRegistry, name: str) -> Decimal:
    (line,) = [line for line in generate_latest(registry).decode().splitlines() if line.startswith(f"{name} ")]
    return Decimal(line.split()[1])


def _deepest_now(conn: psycopg.Connection[Any], metrics: Metrics) -> Decimal:
    registry = CollectorRegistry()
    gauges = LedgerGauges((), metrics.overdrawn)
    registry.register(gauges)
    gauges.refresh(conn)
    return _shown(registry, "taximeter_overdraft_usd")


def test_the_deepest_overdraft_is_shown_and_the_worst_is_kept(
    priced_url: str, redis_url: str, redis_client: Any, ledger: Ledger
):
    metrics, prices = Metrics(), Prices()
    writer = FlagWriter(redis_url, 5.0)
    settings = Settings(database_url=priced_url, broker_url="redis://none", redis_url=redis_url, metrics_port=0)
    booker = Booker(settings, prices, writer, metrics)

    def book(*events: dict[str, Any]) -> None:
        message = Message(json.dumps(events).encode(), names.CONTENT_TYPE_BATCH, names.PAYMENT_QUEUE, 0.0, may_pay=True)
        booker.book(conn, booker.decode([message]))

    with booking_connection(priced_url) as conn, connect(priced_url, autocommit=True) as reader:
        PriceWatch(prices, metrics, writer, lambda: None)(conn)
        book(payment("acme", "1"), usage("acme", 1_120_000))
        assert (_deepest_now(reader, metrics), _shown(metrics.registry, "taximeter_overdraft_worst_usd")) == (0, 0)
        book(usage("acme", 1), usage("beta", 620_000))
        assert _deepest_now(reader, metrics) == Decimal("0.5")
        assert _shown(metrics.registry, "taximeter_overdraft_worst_usd") == Decimal("0.5")
        book(payment("beta", "5"))
        assert _deepest_now(reader, metrics) == Decimal("0.000001")
        assert _shown(metrics.registry, "taximeter_overdraft_worst_usd") == Decimal("0.5")
        later = Metrics()
        assert _deepest_now(reader, later) == Decimal("0.000001")
        assert _shown(later.registry, "taximeter_overdraft_worst_usd") == Decimal("0.000001")
    writer.close()
    assert ledger.balance("beta") == "4.38"
