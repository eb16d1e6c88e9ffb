"""Holds that are priced by an upper bound, or capped by what there is; and tools that die at each point of a call."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import redis

from holds.conftest import open_holds, publish_prices
from taximeter import InsufficientCredit, Meter, PriceMissingError, PricesUnavailableError, names
from waiting import eventually

Fund = Callable[..., None]
CHAT = {"tool": "chat", "provider": "p", "model": "m"}


def test_a_hold_is_priced_exactly_and_rounded_up(fund: Fund, meter: Meter, redis_client: redis.Redis):
    publish_prices(redis_client, input_tokens="2.50", output_tokens="10")
    fund("acme", "1.00")
    most = {"input_tokens": 1_201, "output_tokens": 500}
    hold = meter.hold("acme", **CHAT, quantities=most)
    price = meter.price("acme", **CHAT, quantities=most)
    assert (price, hold.held, hold.output_tokens) == (Decimal("0.0080025"), Decimal("0.008003"), 500)
    hold.release()
    with pytest.raises(PriceMissingError):
        meter.hold("acme", **CHAT, quantities={"pages": 1})
    assert open_holds(redis_client) == {}


def test_without_a_published_book_nothing_is_held(fund: Fund, meter: Meter, redis_client: redis.Redis):
    fund("acme", "1.00")
    with pytest.raises(PricesUnavailableError):
        meter.hold("acme", **CHAT, quantities={"input_tokens": 1})
    assert open_holds(redis_client) == {}


@pytest.mark.parametrize(
    ("balance", "affordable"),
    [
        ("1.00", 1_000),  # 1.12 USD: more than is asked
        ("0.00", 119),  # 0.12 - 0.001 for the input, 0.001 a token
        ("-0.1185", 0),  # not even a token beside the input
        ("-0.1195", None),  # not even the input
    ],
)
def test_a_capped_hold_says_how_many_output_tokens_there_are(
    fund: Fund, meter: Meter, redis_client: redis.Redis, balance: str, affordable: int | None
):
    publish_prices(redis_client, input_tokens="1", output_tokens="1000")
    fund("acme", balance)
    most = {"input_tokens": 1_000, "output_tokens": 1_000}
    if not affordable:
        with pytest.raises(InsufficientCredit):
            meter.hold("acme", **CHAT, quantities=most, on_short="cap")
        assert open_holds(redis_client) == {}
        return
    hold = meter.hold("acme", **CHAT, quantities=most, on_short="cap")
    assert hold.output_tokens == affordable
    assert meter.price("acme", **CHAT, quantities={**most, "output_tokens": affordable}) <= hold.held
    if affordable < 1_000:
        assert meter.price("acme", **CHAT, quantities={**most, "output_tokens": affordable + 1}) > hold.held


def test_capped_holds_of_many_threads_hold_what_there_is_and_no_more(
    fund: Fund, make_meter: Callable[..., Meter], redis_client: redis.Redis
):
    publish_prices(redis_client, input_tokens="1", output_tokens="1000")
    fund("acme", "0.88")
    meter, holds, start = make_meter(), [], threading.Barrier(8)

    def call() -> None:
        start.wait(60)
        for _ in range(20):
            try:
                holds.append(meter.hold("acme", **CHAT, quantities={"output_tokens": 33}, on_short="cap"))
            except InsufficientCredit:
                return

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(hold.held for hold in holds) == 1
    assert sorted({hold.output_tokens for hold in holds}) == [10, 33]
    assert sum(open_holds(redis_client).values()) == 1_000_000


def _die(*_arguments: Any, **_more: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("point", ["held", "told", "spooled", "recorded"])
def test_a_tool_killed_at_any_point_of_a_call_leaves_no_usage_without_its_hold(
    point: str,
    fund: Fund,
    make_meter: Callable[..., Meter],
    valkey_broker_url: str,
    redis_url: str,
    redis_client: redis.Redis,
    tmp_path: Any,
):
    """What was not recorded expires; what may have been recorded keeps its hold until it is booked."""
    fund("acme", "1.00")
    settings = {"broker_url": valkey_broker_url, "redis_url": redis_url, "spool": tmp_path / "shared"}
    child = os.fork()
    if child == 0:  # pragma: no cover -- the child
        try:
            _call_and_die(point, settings)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    (hold,) = redis_client.zrange(names.holds_due_key("acme"), 0, -1)
    lives_ms = redis_client.zscore(names.holds_due_key("acme"), hold) - redis_client.time()[0] * 1000
    if point == "held":
        assert lives_ms <= 61_000
        redis_client.zadd(names.holds_due_key("acme"), {hold: 1})
        assert make_meter().hold("acme", max_cost="0", dry_run=True).available == Decimal("1.12")
        return
    assert lives_ms > 6 * 86_400_000
    with make_meter(**settings) as other:
        other.flush(timeout=60)
    with redis.Redis.from_url(valkey_broker_url) as broker:
        eventually(lambda: broker.llen(names.USAGE_QUEUE) == (0 if point == "told" else 1))
    assert open_holds(redis_client) == {hold: 100_000}


def _call_and_die(point: str, settings: dict[str, Any]) -> None:
    meter = Meter(**settings, timeout_seconds=5)
    with meter.hold("acme", max_cost="0.10") as hold:
        if point == "held":
            _die()
        put = meter._pipeline.put
        if point == "told":
            meter._pipeline.put = _die
        elif point == "spooled":
            meter._pipeline.put = lambda *arguments: (put(*arguments), _die())
        meter.record("acme", **CHAT, quantities={"input_tokens": 1}, hold=hold)
        _die()
