"""The meter in memory does what the real one does: one suite for both."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import redis

from cloud_events import payment_event
from holds.conftest import publish_prices, state, warm
from taximeter import (
    AIDisabled,
    ClosedError,
    InsufficientCredit,
    InvalidEventError,
    Meter,
    PriceMissingError,
    names,
)
from taximeter.limits import EVENT_BYTES_MAX
from taximeter.testing import MemoryMeter
from taximeter_worker.flags.writer import write_states

Setup = tuple[Meter, Callable[[], list[dict[str, Any]]], Callable[[str, str], None]]


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.servers)])
def setup(request: pytest.FixtureRequest) -> Iterator[Setup]:
    """A meter, what it has published, and what sets a workspace's status."""
    if request.param == "memory":
        memory = MemoryMeter(source="/tests")
        yield memory, lambda: [*memory.usages, *memory.payments], memory.set_status
        return
    flags_url = request.getfixturevalue("redis_url")
    broker = request.getfixturevalue("broker_at")(flags_url)
    client = redis.Redis.from_url(flags_url)
    client.set(names.FLAGS_READY, "1")
    meter = request.getfixturevalue("make_meter")(
        broker_url=broker.url, redis_url=flags_url, timeout_seconds=5, source="/tests"
    )

    def published() -> list[dict[str, Any]]:
        meter.flush(timeout=30)
        return [*broker.events(), *broker.events(names.PAYMENT_QUEUE)]

    def set_status(workspace_id: str, status: str) -> None:
        enabled = "0" if status == "insufficient" else "1"
        key = f"{names.FLAG_PREFIX}{{{workspace_id}}}"
        client.hset(key, mapping={"enabled": enabled, "status": status, "since": datetime.now(UTC).isoformat()})

    yield meter, published, set_status
    client.close()


def without_ids(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in {"id", "time"}}


def test_events_are_the_same(setup: Setup) -> None:
    meter, published, _ = setup
    event_id = meter.record(
        "acme", tool="chat", user="u", tags={"team": "a"}, quantities={"requests": 1, "seconds": 0.5}, input="\0"
    )
    payment = payment_event(event_id="p-1")
    assert meter.publish_event(json.dumps(payment)) == "p-1"
    usage, paid = published()
    assert usage["id"] == event_id
    assert without_ids(usage) == {
        "specversion": "1.0",
        "source": "/tests",
        "type": names.USAGE_TYPE,
        "subject": "acme",
        "data": {
            "tool": "chat",
            "user": "u",
            "tags": {"team": "a"},
            "quantities": {"requests": 1, "seconds": 0.5},
            "input": "\0",
        },
    }
    assert paid == payment
    assert meter.stats().recorded == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"quantities": {}},
        {"quantities": {"requests": -1}},
        {"tool": ""},
        {"workspace_id": "no spaces"},
        {"user": ""},
        {"tags": {"Team": "x"}},
        {"id": ""},
        {"input": "x" * EVENT_BYTES_MAX},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_events_are_refused_alike(setup: Setup, wrong: dict[str, Any]) -> None:
    meter, published, _ = setup
    usage: dict[str, Any] = {"workspace_id": "acme", "tool": "chat", "quantities": {"requests": 1}, **wrong}
    with pytest.raises(InvalidEventError):
        meter.record(usage.pop("workspace_id"), **usage)
    assert published() == []


def test_calls_are_checked_and_recorded_alike(setup: Setup) -> None:
    meter, published, set_status = setup
    set_status("poor", "insufficient")
    set_status("near", "low")
    assert (meter.enabled("poor"), meter.enabled("near"), meter.enabled("new")) == (False, True, True)
    assert (meter.status("poor").status, meter.status("near").status) == ("insufficient", "low")
    with pytest.raises(AIDisabled) as told, meter.track("poor", tool="t"):
        pass
    assert (told.value.workspace, told.value.status) == ("poor", "insufficient")
    with meter.track("near", tool="t") as call:
        call.add(pages=2)
    assert [event["data"]["quantities"] for event in published()] == [{"pages": 2}]


def test_a_closed_meter_refuses_alike(setup: Setup) -> None:
    meter, _, _ = setup
    meter.close()
    for call in (
        lambda: meter.record("acme", tool="t", quantities={"requests": 1}),
        lambda: meter.enabled("acme"),
        meter.flush,
        lambda: meter.track("acme", tool="t").__enter__(),
    ):
        with pytest.raises(ClosedError):
            call()


def test_holds_and_prices_are_alike(setup: Setup, request: pytest.FixtureRequest) -> None:
    """The real meter's balance and book are what a worker writes; the one in memory is told."""
    meter, published, _ = setup
    if isinstance(meter, MemoryMeter):
        meter.set_balance("acme", "1.00")
        meter.set_price("input_tokens", "2.50", per=1_000_000, provider="p", model="m")
        meter.set_price("output_tokens", "10", per=1_000_000, provider="p", model="m")
    else:
        client = request.getfixturevalue("redis_client")
        warm(client)
        write_states(client, [state("acme", "1.00")])
        publish_prices(client, input_tokens="2.50", output_tokens="10")
    chat = {"tool": "chat", "provider": "p", "model": "m"}
    assert meter.price("acme", **chat, quantities={"input_tokens": 1_201}) == Decimal("0.0030025")
    with pytest.raises(PriceMissingError):
        meter.price("acme", **chat, quantities={"pages": 1})
    with meter.hold("acme", **chat, quantities={"input_tokens": 1_201}, key="one") as hold:
        assert (hold.held, hold.available) == (Decimal("0.003003"), Decimal("1.116997"))
        assert meter.hold("acme", max_cost="5", key="one").held == hold.held
        with pytest.raises(InsufficientCredit) as short:
            meter.hold("acme", max_cost="1.116998")
        assert short.value.available == Decimal("1.116997")
        hold.extend("0.12")
        with pytest.raises(InsufficientCredit):
            hold.extend("1.13")
        meter.record("acme", **chat, quantities={"input_tokens": 1}, hold=hold)
    with pytest.raises(ClosedError):
        hold.extend("0.2")
    assert meter.hold("acme", max_cost="0", dry_run=True).available == 1, "its booking settles it"
    capped = meter.hold("acme", **chat, quantities={"output_tokens": 10**6}, on_short="cap")
    assert (capped.held, capped.output_tokens) == (1, 100_000)
    assert not meter.hold("acme", max_cost="0.01", dry_run=True).granted
    capped.release()
    with meter.hold("acme", max_cost="1"):
        pass
    assert meter.hold("acme", max_cost="1", dry_run=True).granted
    with meter.track("acme", **chat, hold="0.5") as call:
        call.add(input_tokens=1)
    assert [event["data"].get("hold") for event in published()][:1] == ["one"]
    assert meter.hold("acme", max_cost="0", dry_run=True).available == Decimal("0.5")
