"""Web applications on ASGI (FastAPI, Starlette, …): who pays for a request, and 402 where AI is off.

Nothing here is the library's: what is served is ASGI.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

from taximeter.calls.attribution import Attribution
from taximeter.calls.call import Recorder
from taximeter.errors import CallRefusedError
from taximeter.integrations import problems

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Attribute = Callable[[Scope], "Attribution | Awaitable[Attribution | None] | None"]

_POLICY_VIOLATION: Final = 1008


class TaximeterMiddleware:
    """Runs each request inside of its attribution, and answers 402 with a problem where AI is off.

    ``app.add_middleware(TaximeterMiddleware, meter=meter, attribution=who_pays)``

    Args:
        app: The application.
        meter: What checks.
        attribution: Says of a request's ASGI scope who pays: what ``meter.attribution`` returns, or None where nobody
            needs to. May be a coroutine function.
        check: Refuse the request itself where AI is off. False: only a call to AI within it is refused, and becomes a
            402 if the application lets the error through before it answers.
    """

    def __init__(self, app: Application, *, meter: Recorder, attribution: Attribute, check: bool = True) -> None:
        self._app = app
        self._meter = meter
        self._attribution = attribution
        self._check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        found = self._attribution(scope)
        payer: Attribution | None = (await found) if inspect.isawaitable(found) else found
        is_answered = False

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal is_answered
            is_answered = True
            await send(message)

        try:
            if payer is None:
                await self._app(scope, receive, sending)
                return
            if self._check:
                self._meter.check_call(payer)
            with payer:
                await self._app(scope, receive, sending)
        except CallRefusedError as error:
            if is_answered:
                raise
            await _refuse(scope, send, error)


async def _refuse(scope: Mapping[str, Any], send: Send, error: CallRefusedError) -> None:
    kind = "http.response"
    if scope["type"] == "websocket":
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": "AI is disabled"})
            return
        kind = "websocket.http.response"
    body = problems.body(error)
    headers = [(b"content-type", problems.CONTENT_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": f"{kind}.start", "status": problems.STATUS, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
