"""MCP servers: middleware that meters each call of a tool, ``MCPServer("clips", middleware=[TaximeterMiddleware(meter)])``.

A call counts as one of ``requests``, and with the ``seconds`` that it took where that is asked for. What the tool knows
better it adds by `taximeter.current_call`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, Final

from taximeter.calls.attribution import Attribution, current
from taximeter.calls.call import REQUESTS, Call, Recorder
from taximeter.calls.tracking import Track
from taximeter.errors import CallRefusedError, NoAttributionError

CALL: Final = "tools/call"
"""The method that is metered. Everything else an MCP server answers is free."""
SECONDS_DECIMALS: Final = 6


class TaximeterMiddleware:
    """Checks each call of a tool before it is made, and records it after it.

    A call that is refused is answered as a tool's error, which says what to do. Within a call wrapped clients are
    attributed likewise, and record what they consume by themselves.

    Args:
        meter: What checks and records.
        attribution: Who pays: an attribution, or what tells it of the request's context (``ctx.meta``, ``ctx.request``).
            Default: the attribution around the server.
        seconds: Whether to count the time that a call took.
        provider: Who runs the tools, as the price book calls it. The event's model is the tool's name.
    """

    def __init__(
        self,
        meter: Recorder,
        attribution: Attribution | Callable[[Any], Attribution | None] | None = None,
        *,
        seconds: bool = False,
        provider: str | None = None,
    ) -> None:
        self._meter = meter
        self._attribution = attribution
        self._seconds = seconds
        self._provider = provider

    async def __call__(self, ctx: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
        """Meter one message of a client."""
        if ctx.method != CALL:
            return await call_next(ctx)
        name = (ctx.params or {}).get("name")
        try:
            track = Track(
                self._meter, self._payer(ctx), provider=self._provider, model=name if isinstance(name, str) else None
            )
            call = track.__enter__()
        except CallRefusedError as error:
            from mcp.types import CallToolResult, TextContent

            return CallToolResult(content=[TextContent(type="text", text=str(error))], is_error=True)
        begun = time.perf_counter_ns()
        try:
            result = await call_next(ctx)
        except BaseException as raised:
            if not isinstance(raised, Exception):  # cancelled; a message that is wrong consumes nothing
                self._count(call, begun)
            track.__exit__(type(raised), raised, raised.__traceback__)
            raise
        self._count(call, begun)
        track.__exit__(None, None, None)
        return result

    def _count(self, call: Call, begun: int) -> None:
        call.add({REQUESTS: 1})
        if self._seconds:
            taken = Decimal(time.perf_counter_ns() - begun).scaleb(-9)
            call.add(seconds=round(taken, SECONDS_DECIMALS))

    def _payer(self, ctx: Any) -> Attribution | None:
        given = self._attribution
        payer = given if given is None or isinstance(given, Attribution) else given(ctx)
        if payer is None and current() is None:
            raise NoAttributionError("nobody says which workspace pays for this call of a tool, so it was not made")
        return payer
