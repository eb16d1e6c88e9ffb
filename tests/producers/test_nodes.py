"""Several RabbitMQ nodes in one address."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from taximeter import Meter, names
from waiting import eventually

REQUEST: dict[str, Any] = {"tool": "chat", "quantities": {"requests": 1}}


def test_a_dead_node_is_passed_over(
    own_rabbitmq: Callable[[], Any], broker_at: Callable[[str], Any], make_meter: Callable[..., Meter]
) -> None:
    first, second = own_rabbitmq(), own_rabbitmq()
    brokers = [broker_at(node.url()) for node in (first, second)]
    for broker in brokers:
        broker.declare(names.USAGE_ROUTING_KEY)
    address = f"{first.url()};{second.url()}"
    meter = make_meter(broker_url=address)
    before = meter.record("acme", **REQUEST)
    meter.flush(20)
    assert [event["id"] for event in brokers[0].events()] == [before]
    first.kill()
    after = meter.record("acme", **REQUEST)
    meter.flush(20)
    assert [event["id"] for event in brokers[1].events()] == [after]
    late = make_meter(broker_url=address)  # one that starts while the first node is away
    last = late.record("acme", **REQUEST)
    late.flush(20)
    assert [event["id"] for event in brokers[1].events()] == [last]
    eventually(lambda: late.stats().last_error is None)


def test_a_node_that_takes_connections_and_confirms_nothing_is_left(
    own_rabbitmq: Callable[[], Any],
    broker_at: Callable[[str], Any],
    make_meter: Callable[..., Meter],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("taximeter.spool.publisher.CONFIRM_TIMEOUT_SECONDS", 1.0)
    first, second = own_rabbitmq(), own_rabbitmq()
    broker_at(first.url()).declare(names.USAGE_ROUTING_KEY)
    other = broker_at(second.url())
    other.declare(names.USAGE_ROUTING_KEY)
    first.ctl("set_vm_memory_high_watermark", "0")
    meter = make_meter(broker_url=f"{first.url()};{second.url()}")
    event_id = meter.record("acme", **REQUEST)
    meter.flush(60)
    assert [event["id"] for event in other.events()] == [event_id]
