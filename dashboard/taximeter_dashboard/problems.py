"""Errors as RFC 9457 problem details."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from fastapi.exceptions import RequestValidationError
from starlette.responses import Response

from taximeter_dashboard.errors import ProblemError

log = logging.getLogger("taximeter_dashboard")


def answer(problem: ProblemError) -> Response:
    """A problem as ``application/problem+json``. Without ``instance``: what is another's must read like what is absent."""
    body = {
        "type": "about:blank",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
    }
    headers = dict(problem.headers)
    if problem.status == 401:
        headers["www-authenticate"] = "Bearer"
    if problem.status == 503:
        headers["retry-after"] = "2"
    return Response(msgspec.json.encode(body), problem.status, headers, "application/problem+json")


def invalid(error: RequestValidationError) -> ProblemError:
    """A parameter that cannot be read, named, as 422."""
    parts = []
    for one in error.errors():
        where = ".".join(str(part) for part in one["loc"][1:]) or "body"
        parts.append(f"{where}: {one['msg']}")
    return ProblemError("; ".join(parts)[:1000] + ".", status=422, title="Not valid")


_HTTP = {
    405: "This address does not take requests of this kind.",
    406: "There is no answer of the kind that was asked for.",
    413: "The request is too large.",
    415: "The request's body is of a kind that is not read here.",
}


def http(status: int, detail: str, headers: Mapping[str, str] | None) -> ProblemError:
    """What the framework itself refuses, with the headers that the refusal needs (405: Allow)."""
    title = HTTPStatus(status).phrase.capitalize()
    return ProblemError(_HTTP.get(status, detail), status=status, title=title, headers=headers)


def number_of(problem: ProblemError) -> str:
    """A number by which a person can ask about an answer that failed; the log has it too."""
    if problem.number is None:
        problem.number = secrets.token_hex(4)
        log.warning("request %s failed: %s", problem.number, problem.__cause__ or problem.detail)
    return problem.number


def unexpected(error: Exception) -> ProblemError:
    """An error of ours: a number for the person, the trace for the log."""
    problem = ProblemError("This could not be done, and it is our fault.", status=500, title="Failed")
    problem.number = secrets.token_hex(4)
    problem.detail += f" Give this number if you ask about it: {problem.number}."
    log.error("request %s failed", problem.number, exc_info=error)
    return problem
