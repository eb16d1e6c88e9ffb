"""Errors as RFC 9457 problem details."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import msgspec
from starlette.responses import Response

from taximeter_gateway.errors import ProblemError

MEDIA_TYPE: Final = "application/problem+json"
log = logging.getLogger("taximeter_gateway")


def answer(problem: ProblemError) -> Response:
    """A problem as ``application/problem+json``."""
    body = {
        "type": "about:blank",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        **problem.members,
    }
    return Response(msgspec.json.encode(body), problem.status, problem.headers, MEDIA_TYPE)


def http(status: int, detail: str, headers: Mapping[str, str] | None) -> ProblemError:
    """What the framework itself refuses, with the headers that the refusal needs (405: Allow)."""
    return ProblemError(f"{detail}.", status=status, title=HTTPStatus(status).phrase.capitalize(), headers=headers)


def unexpected(error: Exception) -> ProblemError:
    """An error of ours: a number for the person, the trace for the log."""
    number = secrets.token_hex(4)
    log.error("request %s failed", number, exc_info=error)
    return ProblemError(
        f"This could not be done, and it is our fault. Give this number if you ask about it: {number}. Whatever you sent,"
        " sending it again with the same ids is safe.",
        status=500,
        title="Failed",
    )
