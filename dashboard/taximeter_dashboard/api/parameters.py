"""Parameters that an address of the JSON API does not have: denied, since a filter that is misspelt would show everything."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from taximeter_dashboard.errors import ProblemError


def refuse_unknown(request: Request) -> None:
    """A dependency of what takes parameters; they are those of the OpenAPI document.

    Raises:
        ProblemError: 422, with the name and what there is.
    """
    if request.scope["route"].path_format.endswith("/enabled"):
        return  # a tool that asks whether AI is on is never turned away
    path: dict[str, Any] = request.app.openapi()["paths"][request.scope["route"].path_format]
    known = sorted(entry["name"] for entry in path[request.method.lower()]["parameters"] if entry["in"] == "query")
    for name in request.query_params:
        if known and name not in known:
            hint = " Pages are turned by `cursor`." if name == "page" and "cursor" in known else ""
            detail = f"{name[:100]}: This address has no such parameter.{hint} It has: {', '.join(known)}."
            raise ProblemError(detail, status=422, title="Not valid")
