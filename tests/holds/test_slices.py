"""Slices: many holds of one process out of one hold in Redis; never more than is held there, and what is unused comes back."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import redis

from holds.conftest import open_holds, state, warm
from taximeter import (
    ClosedError,
    ConfigurationError,
    HoldsUnavailableError,
    InsufficientCredit,
    InvalidEventError,
    Meter,
    names,
)
from taximeter_worker.flags.marks import HoldTerms
from taximeter_worker.flags.writer import write_states
from waiting import eventually

Fund = Callable[..., None]
CHAT = {"tool": "chat", "provider": "p", "model": "m"}


def test_holds_come_out_of_one_slice_and_go_back_into_it(fund: Fund, meter: Meter, redis_client: redis.Redis):
    fund("acme", "0.88")
    slices = meter.slices("acme", max_cost="0.10", size="0.30")
    with slices.hold() as one, slices.hold() as other, slices.hold():
        assert (one.held, one.workspace_id, one.granted) == (Decimal("0.1"), "acme", True)
        assert one.id != other.id
        (amount,) = open_holds(redis_client).values()
        assert amount == 300_000
        with slices.hold():  # of a second slice
            assert sorted(open_holds(redis_client).values()) == [300_000, 300_000]
    calls = redis_client.info("commandstats")["cmdstat_evalsha"]["calls"]
    for _ in range(100):
        with slices.hold():
            pass
    assert redis_client.info("commandstats")["cmdstat_evalsha"]["calls"] - calls < 20, "the keeper's alone"
    slices.close()
    eventually(lambda: open_holds(redis_client) == {})


def test_a_recorded_call_is_moved_to_a_hold_of_its_own_in_one_step(
    fund: Fund, make_meter: Callable[..., Meter], valkey_broker_url: str, redis_client: redis.Redis
):
    fund("acme", "0.88")
    meter = make_meter(broker_url=valkey_broker_url)
    slices = meter.slices("acme", max_cost="0.10", size="0.50")
    with slices.hold() as hold:
        hold.extend("0.15")
        with pytest.raises(InsufficientCredit):
            hold.extend("0.51")
        meter.record("acme", **CHAT, quantities={"input_tokens": 1}, hold=hold)
        with pytest.raises(ClosedError):
            hold.extend("0.2")
    holds = open_holds(redis_client)
    assert holds.pop(hold.id) == 150_000
    assert [*holds.values()] == [350_000]
    now_ms = redis_client.time()[0] * 1000
    assert redis_client.zscore(names.holds_due_key("acme"), hold.id) > now_ms + 6 * 86_400_000
    write_states(redis_client, [state("acme", "0.80", version=2)], holds={"acme": [hold.id]})
    slices.close()
    assert open_holds(redis_client) == {}


def test_the_last_slice_is_as_large_as_what_there_is(fund: Fund, meter: Meter, redis_client: redis.Redis):
    fund("acme", "0.13")
    slices = meter.slices("acme", max_cost="0.10", size="0.20")
    first = slices.hold()
    second = slices.hold()
    with pytest.raises(InsufficientCredit) as short:
        slices.hold()
    assert short.value.available == Decimal("0.05")
    assert sum(open_holds(redis_client).values()) == 200_000
    for hold in (first, second):
        hold.release()
    assert slices.hold().held == Decimal("0.1")


def test_many_threads_never_take_more_than_there_is(fund: Fund, meter: Meter, redis_client: redis.Redis):
    fund("acme", "0.88")
    slices, start, taken = meter.slices("acme", max_cost="0.01", size="0.07"), threading.Barrier(8), []

    def take() -> None:
        start.wait(60)
        while True:
            try:
                taken.append(slices.hold())
            except InsufficientCredit:
                return

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(taken) == 100
    assert len({hold.id for hold in taken}) == 100
    assert sum(open_holds(redis_client).values()) <= 1_000_000
    for hold in taken:
        hold.release()
    slices.close()
    eventually(lambda: open_holds(redis_client) == {})


def test_an_unused_slice_comes_back_and_a_used_one_stays(meter: Meter, redis_client: redis.Redis):
    warm(redis_client, terms=HoldTerms(seconds_max=2))
    write_states(redis_client, [state("acme", "0.88")])
    slices = meter.slices("acme", max_cost="0.10", size="0.30", ttl=2)
    with slices.hold():
        due = redis_client.zrange(names.holds_due_key("acme"), 0, -1, withscores=True)[0][1]
        eventually(lambda: redis_client.zrange(names.holds_due_key("acme"), 0, -1, withscores=True)[0][1] > due + 2_000)
    eventually(lambda: redis_client.hlen(names.holds_key("acme")) == 0)
    with slices.hold():
        assert sum(open_holds(redis_client).values()) == 300_000


def test_a_slice_that_redis_may_not_hold_any_more_is_not_used(
    make_meter: Callable[..., Meter], fund: Fund, redis_client: redis.Redis
):
    fund("acme", "0.88")
    slices = make_meter().slices("acme", max_cost="0.10", size="0.50")
    with slices.hold():
        slices._slice.good_until = 0.0  # as if it had not been renewed for its whole life
        redis_client.delete(names.FLAGS_READY)
        with pytest.raises(HoldsUnavailableError):
            slices.hold()


def test_a_forked_child_takes_nothing_of_its_parents_slice(fund: Fund, meter: Meter, redis_client: redis.Redis):
    fund("acme", "0.88")
    slices = meter.slices("acme", max_cost="0.10", size="0.30")
    with slices.hold() as hold:
        child = os.fork()
        if child == 0:  # pragma: no cover -- the child
            code = 1
            try:
                hold.release()
                with slices.hold():
                    code = 0 if sorted(open_holds(redis_client).values()) == [300_000, 300_000] else 2
                slices.close()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert [*open_holds(redis_client).values()] == [300_000]
        assert slices._slice.free == 200_000


@pytest.mark.parametrize(("max_cost", "size"), [("0.10", "0.05"), ("0", "1"), ("x", "1")])
def test_sizes_that_make_no_sense_are_refused(meter: Meter, max_cost: Any, size: Any):
    with pytest.raises((ConfigurationError, InvalidEventError), match="max_cost"):
        meter.slices("acme", max_cost=max_cost, size=size)
