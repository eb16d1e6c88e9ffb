"""Parameters that an address of the JSON API does not have: refused, since a filter that is misspelt shows everything."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from taximeter_dashboard.errors import Problem


def refuse_unknown(request: Request) -> None:
    """A dependency of what takes parameters; they are those of the OpenAPI document.

    Raises:
        Problem: 422, with the name and what there is.
    """
    path: dict[str, Any] = request.app.openapi()["paths"][request.scope["route"].path_format]
    known = sorted(one["name"] for one in path[request.method.lower()]["parameters"] if one["in"] == "query")
    for name in request.query_params:
        if known and name not in known:
            hint = " Pages are turned by `cursor`." if name == "page" and "cursor" in known else ""
            detail = f"{name[:100]}: There is no such parameter here.{hint} There are: {', '.join(known)}."
            raise Problem(detail, status=422, title="Not valid")
