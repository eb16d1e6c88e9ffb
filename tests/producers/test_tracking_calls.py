"""`Meter.attribution` and `Meter.track`, of functions of every kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextvars import copy_context
from decimal import Decimal
from typing import Any

import pytest

from taximeter import AIDisabled, Call, ConfigurationError, InvalidEventError, NoAttributionError, current_call
from taximeter.calls.attribution import current
from taximeter.testing import MemoryMeter

BROKEN = ["call_incomplete", "output_lower_bound"]


@pytest.fixture
def meter() -> MemoryMeter:
    return MemoryMeter()


def data(meter: MemoryMeter) -> list[dict[str, Any]]:
    return [usage["data"] for usage in meter.usages]


def test_what_is_added_is_recorded_at_the_end(meter: MemoryMeter) -> None:
    with meter.track("acme", tool="clip-maker", user="u-17", tags={"team": "search"}) as call:
        call.add(seconds=90)
        call.add({"seconds": Decimal("0.5"), "images": 2})
        call.model, call.provider, call.input, call.output = "clip-1", "self", "a cat", {"frames": 9}
        call.metadata["request_id"] = "req_9"
        assert meter.usages == []
    assert meter.usages[0]["subject"] == "acme"
    assert data(meter) == [
        {
            "tool": "clip-maker",
            "provider": "self",
            "model": "clip-1",
            "user": "u-17",
            "tags": {"team": "search"},
            "quantities": {"seconds": 90.5, "images": 2},
            "input": "a cat",
            "output": {"frames": 9},
            "metadata": {"request_id": "req_9"},
        }
    ]


def test_a_call_to_which_nothing_is_added_is_a_request(meter: MemoryMeter) -> None:
    with meter.track("acme", tool="t"):
        pass
    with meter.attribution("acme", tool="t"), meter.track(quantities={"pages": 3}):
        pass
    assert [it["quantities"] for it in data(meter)] == [{"requests": 1}, {"pages": 3}]


def test_an_error_leaves_a_lower_bound_or_nothing(meter: MemoryMeter) -> None:
    def work(amount: int) -> None:
        with meter.track("acme", tool="t") as call:
            if amount:
                call.add(seconds=amount)
            raise KeyError(amount)

    for amount in (0, 7):
        with pytest.raises(KeyError):
            work(amount)
    assert [(it["quantities"], it["metadata"]["flags"]) for it in data(meter)] == [({"seconds": 7}, BROKEN)]


def test_a_disabled_workspace_is_refused_before_anything_runs(meter: MemoryMeter) -> None:
    meter.set_status("acme", "insufficient")
    ran = []

    @meter.track("acme", tool="t")
    def work() -> None:
        ran.append(1)

    with pytest.raises(AIDisabled, match="taximeter credit acme"):
        work()
    assert (ran, meter.usages) == ([], [])


def test_functions_of_every_kind_are_decorated(meter: MemoryMeter) -> None:
    @meter.track("acme", tool="plain", quantities={"requests": 2})
    def plain(number: int) -> int:
        """Doubles."""
        return number * 2

    @meter.track("acme", tool="given")
    def given(number: int, call: Call | None = None) -> int:
        assert call is current_call()
        call.add(pages=number)
        return number

    @meter.track("acme", tool="coroutine")
    async def coroutine() -> str:
        await asyncio.sleep(0)
        current_call().add(seconds=1)
        return "done"

    @meter.track("acme", tool="generator")
    def generator() -> Iterator[int]:
        for number in range(3):
            current_call().add(pages=1)
            yield number

    @meter.track("acme", tool="asyncgen")
    async def asyncgen() -> AsyncIterator[int]:
        for number in range(3):
            await asyncio.sleep(0)
            current_call().add(pages=1)
            yield number

    async def asynchronous() -> list[int]:
        assert await coroutine() == "done"
        async with meter.track("acme", tool="block") as call:
            call.add(seconds=4)
        return [number async for number in asyncgen()]

    assert (plain(4), plain.__doc__, given(5)) == (8, "Doubles.", 5)
    steps = []
    for number in generator():
        assert current() is None
        steps.append(number)
    assert steps == asyncio.run(asynchronous()) == [0, 1, 2]
    assert {it["tool"]: it["quantities"] for it in data(meter)} == {
        "plain": {"requests": 2},
        "given": {"pages": 5},
        "coroutine": {"seconds": 1},
        "block": {"seconds": 4},
        "generator": {"pages": 3},
        "asyncgen": {"pages": 3},
    }


def test_a_generator_that_is_left_early_is_a_lower_bound(meter: MemoryMeter) -> None:
    @meter.track("acme", tool="t")
    def pages() -> Iterator[int]:
        for number in range(9):
            current_call().add(pages=1)
            yield number

    running = pages()
    copy_context().run(next, running)  # each step in a context of its own, as servers do it
    copy_context().run(next, running)
    running.close()
    assert [(it["quantities"], it["metadata"]["flags"]) for it in data(meter)] == [({"pages": 2}, BROKEN)]


def test_attributions_nest_and_are_names_that_an_event_can_bear(meter: MemoryMeter) -> None:
    outer, inner = meter.attribution("a", tool="t"), meter.attribution("b", tool="t")
    with outer:
        with inner, outer:
            assert current() is outer
        assert current() is outer
    assert current() is None

    @outer
    async def who() -> object:
        await asyncio.sleep(0)
        return current()

    assert asyncio.run(who()) is outer
    for wrong in ({"user": ""}, {"tags": {"Team": "x"}}, {"tags": dict.fromkeys(map(str, range(9)), "x")}):
        with pytest.raises(InvalidEventError):
            meter.attribution("acme", tool="t", **wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidEventError):
        meter.attribution("no spaces", tool="t")


def test_what_is_half_said_is_refused(meter: MemoryMeter) -> None:
    with pytest.raises(ConfigurationError, match="neither"):
        meter.track("acme")
    with pytest.raises(ConfigurationError, match="user and tags"):
        meter.track(user="u")
    with pytest.raises(NoAttributionError), meter.track():
        pass
    with pytest.raises(ConfigurationError, match="no call is tracked"):
        current_call()
    with meter.track("acme", tool="t") as call, pytest.raises(InvalidEventError):
        call.add(seconds=-1)
