"""Placing holds: exact, idempotent by key, never more than there is, and given back or expired."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

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
)
from taximeter_worker.flags.marks import HoldTerms
from taximeter_worker.flags.writer import write_states
from waiting import eventually

Fund = Callable[..., None]


def test_a_hold_counts_against_what_is_available(fund: Fund, meter: Meter, redis_client: redis.Redis):
    fund("acme", "1.00")
    with meter.hold("acme", max_cost="0.50") as hold:
        assert (hold.held, hold.available) == (Decimal("0.5"), Decimal("0.62"))
        assert open_holds(redis_client) == {hold.id: 500_000}
        with pytest.raises(InsufficientCredit) as short:
            meter.hold("acme", max_cost="0.620001")
        assert (short.value.workspace, short.value.available) == ("acme", Decimal("0.62"))
        assert short.value.status == "sufficient"
    assert open_holds(redis_client) == {}
    assert meter.hold("acme", max_cost="1.12").available == 0


@pytest.mark.parametrize(
    ("balance", "minimum", "affordable", "too_much"),
    [
        ("0", "-0.12", "0.12", "0.120001"),
        ("0.0000009", "-0.12", "0.12", "0.1200001"),
        ("-0.0000001", "-0.12", "0.119999", "0.12"),
        ("-0.1199999", "-0.12", "0", "0.000001"),
        ("0", "0.0000001", None, "0"),
        ("0.000001", "-0.0000019", "0.000002", "0.000003"),
        ("999999999999999.999999999999", "-0.12", "8000000000", None),
        ("-999999999999999.999999999999", "-0.12", None, "0"),
        ("0", "-999999999999999.999999999999", "8000000000", None),
    ],
)
def test_amounts_are_whole_microdollars_to_the_safe_side(
    fund: Fund, meter: Meter, balance: str, minimum: str, affordable: str | None, too_much: str | None
):
    fund("acme", balance, minimum=minimum)
    if too_much is not None:
        with pytest.raises(InsufficientCredit):
            meter.hold("acme", max_cost=too_much)
    if affordable is not None:
        assert meter.hold("acme", max_cost=affordable).held == Decimal(affordable)


def test_a_held_amount_is_rounded_up(fund: Fund, meter: Meter):
    fund("acme", "1")
    assert meter.hold("acme", max_cost=Decimal("0.0000001")).held == Decimal("0.000001")


@pytest.mark.parametrize("amount", [0.05, True, None, "x", "nan", "-1", "8000000001", b"1"])
def test_an_amount_that_is_none_is_rejected(fund: Fund, meter: Meter, amount: object):
    with pytest.raises((InvalidEventError, ConfigurationError)):
        meter.hold("acme", max_cost=amount)  # type: ignore[arg-type]


def test_a_new_workspace_has_what_its_minimum_allows(meter: Meter, redis_client: redis.Redis):
    warm(redis_client, terms=HoldTerms(minimum=-2 * 10**12))
    assert meter.hold("new", max_cost="1.5").available == Decimal("0.5")


def test_the_same_key_is_the_same_hold(fund: Fund, meter: Meter, redis_client: redis.Redis):
    fund("acme", "0")
    first = meter.hold("acme", max_cost="0.10", key="job 1")
    again = meter.hold("acme", max_cost="0.10", key="job 1")
    assert (first.id, again.id, again.held) == ("job 1", "job 1", Decimal("0.1"))
    assert open_holds(redis_client) == {"job 1": 100_000}
    again.release("done")
    assert open_holds(redis_client) == {}


def test_a_thousand_calls_at_once_get_not_a_microdollar_too_much(
    fund: Fund, make_meter: Callable[..., Meter], redis_client: redis.Redis
):
    fund("acme", "5.00")
    meters = [make_meter() for _ in range(4)]
    start = threading.Barrier(16)

    def calls(number: int) -> int:
        start.wait()
        granted = 0
        for _ in range(63):
            try:
                meters[number % 4].hold("acme", max_cost="0.05")
            except InsufficientCredit:
                continue
            granted += 1
        return granted

    with ThreadPoolExecutor(16) as pool:
        granted = sum(pool.map(calls, range(16)))
    assert granted == 102  # of 1,008 calls: 5.12 USD are available
    assert sum(open_holds(redis_client).values()) == 5_100_000


def test_a_hold_is_extended_as_far_as_the_balance_goes(fund: Fund, meter: Meter, redis_client: redis.Redis):
    fund("acme", "0.88")
    hold = meter.hold("acme", max_cost="0.10")
    hold.extend("1.00")
    assert (hold.held, hold.available) == (1, 0)
    with pytest.raises(InsufficientCredit):
        hold.extend("1.000001")
    assert open_holds(redis_client) == {hold.id: 1_000_000}
    hold.extend("0.2")
    assert open_holds(redis_client) == {hold.id: 200_000}
    hold.release()
    with pytest.raises(ClosedError):
        hold.extend("0.1")


def test_with_cap_what_there_is_is_held(fund: Fund, meter: Meter):
    fund("acme", "0.03")
    hold = meter.hold("acme", max_cost="1", on_short="cap")
    assert (hold.held, hold.available) == (Decimal("0.15"), 0)
    with pytest.raises(InsufficientCredit):
        meter.hold("acme", max_cost="1", on_short="cap")


def test_a_dry_run_holds_nothing(fund: Fund, meter: Meter, redis_client: redis.Redis):
    fund("acme", "0")
    with meter.hold("acme", max_cost="0.12", dry_run=True) as fits:
        assert (fits.granted, fits.id) == (True, None)
    assert not meter.hold("acme", max_cost="0.13", dry_run=True).granted
    assert open_holds(redis_client) == {}


def test_the_hold_of_a_tool_that_died_expires(fund: Fund, meter: Meter, redis_client: redis.Redis):
    fund("acme", "0")
    meter.hold("acme", max_cost="0.12", ttl=0.2)
    eventually(lambda: meter.hold("acme", max_cost="0.12", dry_run=True).granted, 10)
    assert open_holds(redis_client) == {}


def test_a_hold_lives_as_long_as_its_context(fund: Fund, meter: Meter, redis_client: redis.Redis):
    fund("acme", "0")
    with meter.hold("acme", max_cost="0.12", ttl=0.3) as hold:
        first = redis_client.zscore("taximeter:holds:due:{acme}", hold.id)
        eventually(lambda: redis_client.zscore("taximeter:holds:due:{acme}", hold.id) > first + 600, 20)
        assert not meter.hold("acme", max_cost="0.01", dry_run=True).granted
    assert open_holds(redis_client) == {}


def test_within_its_context_it_is_renewed_however_long_it_was_asked_to_live(meter: Meter, redis_client: redis.Redis):
    """Redis lets it live a second, long before a third of an hour is over."""
    warm(redis_client, terms=HoldTerms(seconds_max=1))
    write_states(redis_client, [state("acme", "0")])
    with meter.hold("acme", max_cost="0.12", ttl=3600) as hold:
        due = redis_client.zscore("taximeter:holds:due:{acme}", hold.id)
        eventually(lambda: redis_client.zscore("taximeter:holds:due:{acme}", hold.id) > due + 1000, 20)


def test_a_hold_without_a_context_lives_as_long_as_it_was_asked_to(meter: Meter, redis_client: redis.Redis):
    """Redis lets it live a second at most, so that one of a dead tool goes then; a live one renews it."""
    warm(redis_client, terms=HoldTerms(seconds_max=1))
    write_states(redis_client, [state("acme", "0")])
    hold = meter.hold("acme", max_cost="0.12", ttl=3)
    due = redis_client.zscore("taximeter:holds:due:{acme}", hold.id)
    eventually(lambda: redis_client.zscore("taximeter:holds:due:{acme}", hold.id) > due + 1000, 20)
    eventually(lambda: meter.hold("acme", max_cost="0.12", dry_run=True).granted, 20)


async def _call(meter: Meter, started: asyncio.Event) -> None:
    async with meter.hold("acme", max_cost="0.12"):
        started.set()
        await asyncio.Event().wait()


def test_a_cancelled_task_gives_its_hold_back(fund: Fund, meter: Meter, redis_client: redis.Redis):
    fund("acme", "0")

    async def cancel() -> None:
        started = asyncio.Event()
        task = asyncio.create_task(_call(meter, started))
        await started.wait()
        assert open_holds(redis_client)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert open_holds(redis_client) == {}

    asyncio.run(cancel())


def test_a_stream_that_nobody_reads_to_its_end_gives_its_hold_back(fund: Fund, meter: Meter, redis_client: redis.Redis):
    fund("acme", "0")

    def stream():
        with meter.hold("acme", max_cost="0.12"):
            yield from "abc"

    chunks = stream()
    next(chunks)
    assert open_holds(redis_client)
    del chunks
    assert open_holds(redis_client) == {}


def test_a_forked_child_leaves_its_parents_holds_alone(fund: Fund, meter: Meter, redis_client: redis.Redis):
    fund("acme", "0")
    with meter.hold("acme", max_cost="0.05", ttl=0.5) as hold:
        child = os.fork()
        if child == 0:  # pragma: no cover -- the child
            code = 1
            try:
                hold.release()
                hold.__exit__(None, None, None)
                with meter.hold("acme", max_cost="0.07"):
                    code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert open_holds(redis_client) == {hold.id: 50_000}
        first = redis_client.zscore("taximeter:holds:due:{acme}", hold.id)
        eventually(lambda: redis_client.zscore("taximeter:holds:due:{acme}", hold.id) > first + 600, 20)
    assert open_holds(redis_client) == {}


@pytest.mark.parametrize("mark", ["none", "old", "another run"])
def test_nothing_is_held_on_a_server_that_nobody_looked_after(
    make_meter: Callable[..., Meter], redis_client: redis.Redis, mark: str
):
    if mark == "old":
        warm(redis_client, holds_from=None)
    elif mark == "another run":
        redis_client.set("taximeter:flags:ready", '{"epoch":1,"flags":0,"run":"x","holds_from":0,"hold_ms_max":60000}')
    with pytest.raises(HoldsUnavailableError):
        make_meter().hold("acme", max_cost="0.01")
    with make_meter(on_unknown="open").hold("acme", max_cost="0.01") as hold:
        assert (hold.id, hold.held, hold.granted) == (None, 0, True)


def test_after_redis_lost_holds_none_is_granted_for_a_while_and_live_ones_are_put_back(
    meter: Meter, fund: Fund, redis_client: redis.Redis
):
    fund("acme", "0")
    with meter.hold("acme", max_cost="0.10", ttl=0.6) as hold:
        redis_client.flushdb()
        seconds, _ = redis_client.time()
        warm(redis_client, holds_from=(seconds + 600) * 1000)
        write_states(redis_client, [state("acme", "0")])
        with pytest.raises(HoldsUnavailableError) as waits:
            meter.hold("acme", max_cost="0.01")
        assert 500 < waits.value.retry_after_seconds <= 600
        eventually(lambda: open_holds(redis_client) == {hold.id: 100_000}, 20)
        warm(redis_client)
        with pytest.raises(InsufficientCredit):
            meter.hold("acme", max_cost="0.03")
