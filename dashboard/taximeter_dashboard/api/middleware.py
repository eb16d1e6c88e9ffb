"""What programs expect of any HTTP API: a rate limit that says when to come back, ETags, HEAD.

A plain ASGI middleware for what lies below ``/api/``, for the OpenAPI document and for ``/health``; pages, streams and exports pass
through it untouched.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Iterator
from threading import Lock
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders

from taximeter_dashboard.errors import TooManyRequestsError
from taximeter_dashboard.problems import answer

CALLERS_MAX: Final = 10_000
"""Callers whose rate is known; beyond it, who has been quiet for longest is forgotten."""
_PATHS: Final = ("/api/", "/openapi.json", "/health")
_STREAMED: Final = "/export"


class Rates:
    """A token bucket for each caller: `per_minute` requests at once, refilled within a minute. 0: no limit."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._lock = Lock()
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def take(self, caller: bytes) -> tuple[int, int]:
        """How many requests are left to a caller after this one, and, where it is one too many, seconds to wait (else 0)."""
        now = time.monotonic()
        with self._lock:
            left, at = self._buckets.pop(caller, (float(self.per_minute), now))
            left = min(self.per_minute, left + (now - at) * self.per_minute / 60)
            wait = 0 if left >= 1 else 1 + int((1 - left) * 60 / self.per_minute)
            self._buckets[caller] = (left if wait else left - 1, now)
            while len(self._buckets) > CALLERS_MAX:
                self._buckets.popitem(last=False)
        return int(left) - (0 if wait else 1), wait


class ApiMiddleware:
    """ASGI middleware, within the compression of answers."""

    def __init__(self, app: Any, requests_per_minute: int) -> None:
        self._app = app
        self._rates = Rates(requests_per_minute)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        path = scope.get("path", "").removeprefix(scope.get("root_path", "").rstrip("/"))
        if scope["type"] != "http" or not path.startswith(_PATHS):
            await self._app(scope, receive, send)
            return
        reply = _Reply(send, Headers(scope=scope).get("if-none-match", ""), head=scope["method"] == "HEAD")
        if self._rates.per_minute and path.startswith("/api/"):
            left, wait = self._rates.take(_caller(scope))
            reply.headers = {"ratelimit-limit": str(self._rates.per_minute), "ratelimit-remaining": str(left)}
            if wait:
                await answer(TooManyRequestsError(wait))(scope, receive, reply.send)
                return
        if reply.head and not path.endswith(_STREAMED):
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, reply.send)


class _Reply:
    """An answer on its way out: with an ETag where it is one piece of JSON, without a body where none is wanted."""

    def __init__(self, send: Any, known: str, *, head: bool) -> None:
        self._send = send
        self._known = known
        self.head = head
        self.headers: dict[str, str] = {}
        self._start: Any = None

    async def send(self, message: Any) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(self.headers)
            if message["status"] == 200 and headers.get("content-type") == "application/json":
                self._start = message  # until the body is seen
                return
        elif message["type"] == "http.response.body":
            if self._start is not None:
                start, self._start = self._start, None
                if not message.get("more_body"):
                    message = self._tag(start, message)
                await self._send(start)
            if self.head:
                message = {**message, "body": b""}
        await self._send(message)

    def _tag(self, start: Any, message: Any) -> Any:
        # Weak: what goes over the wire may be compressed.
        tag = f'W/"{hashlib.blake2b(message.get("body", b""), digest_size=12).hexdigest()}"'
        headers = MutableHeaders(scope=start)
        headers["etag"] = tag
        headers.setdefault("cache-control", "private, no-cache")
        if not any(known in {tag, tag.removeprefix("W/"), "*"} for known in _tags(self._known)):
            return message
        start["status"] = 304
        del headers["content-length"]
        del headers["content-type"]
        return {**message, "body": b""}


def _tags(header: str) -> Iterator[str]:
    return (tag.strip() for tag in header.split(",") if tag.strip())


def _caller(scope: Any) -> bytes:
    """Who asks, as far as the request says: its token or session, else its address. Kept as a digest."""
    headers = Headers(scope=scope)
    client = scope.get("client") or ("",)
    said = headers.get("authorization") or headers.get("cookie") or client[0]
    return hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).digest()
