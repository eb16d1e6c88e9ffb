"""MCP's own server and client in one process, with the middleware."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from mcp import Client
from mcp.server.mcpserver import MCPServer

from taximeter import current_call
from taximeter.integrations.mcp import TaximeterMiddleware
from taximeter.testing import MemoryMeter


@pytest.fixture
def meter() -> MemoryMeter:
    meter = MemoryMeter()
    meter.set_status("broke", "insufficient")
    return meter


def server(middleware: TaximeterMiddleware, started: Callable[[], None] = lambda: None) -> MCPServer:
    made = MCPServer("clips", middleware=[middleware])

    @made.tool()
    def clip(pages: int) -> str:
        """Make a clip."""
        current_call().add(pages=pages)
        return "done"

    @made.tool()
    def fail() -> str:
        """Fail."""
        raise RuntimeError("no")

    @made.tool()
    async def wait() -> str:
        """Wait until cancelled."""
        started()
        await asyncio.Event().wait()
        return "never"

    return made


def call(made: MCPServer, name: str, **arguments: Any) -> Any:
    async def calling() -> Any:
        async with Client(made) as client:
            await client.list_tools()
            return await client.call_tool(name, arguments)

    return asyncio.run(calling())


def events(meter: MemoryMeter) -> list[dict[str, Any]]:
    return [usage["data"] for usage in meter.usages]


def test_a_call_of_a_tool_is_recorded(meter: MemoryMeter) -> None:
    payer = meter.attribution("acme", tool="clips", user="u-17")
    assert not call(server(TaximeterMiddleware(meter, payer, provider="ours")), "clip", pages=3).is_error
    (event,) = events(meter)
    assert event["quantities"] == {"requests": 1, "pages": 3}
    assert (event["tool"], event["user"], event["provider"], event["model"]) == ("clips", "u-17", "ours", "clip")


def test_a_call_takes_seconds_where_that_is_asked(meter: MemoryMeter) -> None:
    payer = meter.attribution("acme", tool="clips")
    call(server(TaximeterMiddleware(meter, lambda _ctx: payer, seconds=True)), "clip", pages=1)
    (event,) = events(meter)
    assert event["quantities"].keys() == {"requests", "pages", "seconds"}
    assert event["quantities"]["seconds"] > 0


def test_a_refused_call_is_answered_with_what_to_do(meter: MemoryMeter) -> None:
    payer = meter.attribution("broke", tool="clips")
    answer = call(server(TaximeterMiddleware(meter, payer)), "clip", pages=3)
    assert answer.is_error
    assert "top it up" in answer.content[0].text
    assert events(meter) == []


def test_a_call_for_which_nobody_pays_is_not_made(meter: MemoryMeter) -> None:
    with pytest.raises(Exception, match=r"."):
        call(server(TaximeterMiddleware(meter, lambda _ctx: None)), "clip", pages=3)
    assert events(meter) == []


def test_a_tool_that_fails_was_called_and_an_unknown_one_was_not(meter: MemoryMeter) -> None:
    payer = meter.attribution("acme", tool="clips")
    made = server(TaximeterMiddleware(meter, payer))
    assert call(made, "fail").is_error
    assert [event["model"] for event in events(meter)] == ["fail"]


def test_a_call_that_is_cancelled_is_recorded(meter: MemoryMeter) -> None:
    async def cancel() -> None:
        started = asyncio.Event()
        made = server(TaximeterMiddleware(meter, meter.attribution("acme", tool="clips")), started.set)
        async with Client(made) as client:
            waiting = asyncio.create_task(client.call_tool("wait", {}))
            await started.wait()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(cancel())
    (event,) = events(meter)
    assert event["quantities"] == {"requests": 1}
    assert event["metadata"]["flags"] == ["call_incomplete", "output_lower_bound"]
