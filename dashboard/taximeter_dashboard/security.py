"""What stands before every request: headers that bind the browser, and the denied of other sites' writes."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders

from taximeter_dashboard.errors import ForbiddenError, NotFoundError, ProblemError
from taximeter_dashboard.problems import answer

_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": _CSP,
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_SAFE = {"GET", "HEAD", "OPTIONS"}


class SecurityMiddleware:
    """ASGI middleware; plain, so that it never holds back a stream."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        if scope["method"] not in _SAFE and not _from_here(Headers(scope=scope)):
            denied = answer(ForbiddenError("This request came from another site and was refused."))
            await denied(scope, receive, send_with_headers)
            return
        nul = _nul(scope)
        if nul is not None:
            await answer(nul)(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)


def _nul(scope: Any) -> ProblemError | None:
    """The answer to an address with a NUL: no id, name or filter holds one, and PostgreSQL's text cannot."""
    if "\0" in scope["path"]:
        return NotFoundError()
    query = scope.get("query_string", b"")
    return ProblemError("An address cannot hold a NUL character.") if b"%00" in query or b"\0" in query else None


def _from_here(headers: Headers) -> bool:
    """Whether a write comes from a page of ours, or from a program that brings a token of its own and no cookie."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = headers.get("origin")
    if origin is not None:
        return bool(urlsplit(origin).netloc) and urlsplit(origin).netloc == headers.get("host")
    return "cookie" not in headers and "authorization" in headers
