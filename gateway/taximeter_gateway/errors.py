"""Errors of the gateway.

GatewayError
├── ListenError               a port cannot be had
└── ProblemError              an answer other than 2xx, told to the client as RFC 9457 problem details
    ├── KeyNeededError        401: no key, or one that does not count
    ├── NotFoundError         404: absent, or beyond the key; the two are not to be told apart
    ├── TooLargeError         413: more bytes or events than are taken
    ├── TooFastError          429: beyond the rate of the key
    ├── BusyError             503: more waits than may wait; nothing of the request was taken
    └── UnconfirmedError      504: the events are spooled, and the broker has not confirmed them in time
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


class GatewayError(Exception):
    """Root of every error that this package raises itself."""


class ListenError(GatewayError):
    """A port cannot be had."""

    def __init__(self, host: str, port: int, error: Exception) -> None:
        why = getattr(error, "strerror", None) or "this is not the name of a host"
        super().__init__(f"Port {port} of {ascii(host)[1:-1]} cannot be had: {why}. Choose another one.")


class ProblemError(GatewayError):
    """An answer other than 2xx, with a sentence for a person.

    Args:
        detail: The sentence. It quotes nothing of what was sent but names.
        status: HTTP's.
        title: What this status is called.
        headers: Headers of the answer.
        members: Members of the problem's document beside those that all have.
    """

    status = 400
    title = "Bad request"

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        title: str | None = None,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        self.detail = detail
        self.status = status or type(self).status
        self.title = title or type(self).title
        self.headers = dict(headers or {})
        self.members = dict(members or {})
        super().__init__(detail)


class KeyNeededError(ProblemError):
    """No key was sent, or one that does not count."""

    status = 401
    title = "Key needed"

    def __init__(self) -> None:
        super().__init__(
            "Send a producer key that counts: Authorization: Bearer <key>. `taximeter producers new` makes one.",
            headers={"www-authenticate": "Bearer"},
        )


class NotFoundError(ProblemError):
    """Absent, or beyond the key."""

    status = 404
    title = "Not found"

    def __init__(self, detail: str = "There is nothing here for this key.") -> None:
        super().__init__(detail)


class TooLargeError(ProblemError):
    """More bytes or events than one request may bring. The connection ends: the rest of it is not read."""

    status = 413
    title = "Too large"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"connection": "close"})


class TooFastError(ProblemError):
    """More events than the key may publish in a second."""

    status = 429
    title = "Too many events"

    def __init__(self, events_per_second: int, wait_seconds: int) -> None:
        super().__init__(
            f"This key may publish {events_per_second} events a second. Nothing of the request was taken; send it again in"
            f" {wait_seconds} s.",
            headers={"retry-after": str(wait_seconds)},
        )


class BusyError(ProblemError):
    """Nothing of the request was taken, because too much waits already or a server is away."""

    status = 503
    title = "Busy"

    def __init__(self, why: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(
            f"{why} Nothing of the request was taken; send it again later.",
            headers={"retry-after": str(math.ceil(retry_after_seconds or 2)), "connection": "close"},
        )


class UnconfirmedError(ProblemError):
    """The events are spooled, and the broker has not confirmed them in time."""

    status = 504
    title = "Not confirmed"

    def __init__(self, seconds: int) -> None:
        super().__init__(
            f"The broker has not confirmed the events within {seconds} s. They are spooled here and are published as soon as"
            " it does. To be sure, send them again with the same ids: an id is charged once.",
            headers={"retry-after": "5"},
        )
