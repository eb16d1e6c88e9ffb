"""What the routes of the JSON API share: how they answer, and parameters that several take."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import Path, Query
from starlette.responses import Response

WorkspaceId = Annotated[str, Path(max_length=128, examples=["acme"])]
Limit = Annotated[int, Query(ge=1, le=100)]

# Quantities stay exact: a number with six decimals beyond 2^53 has no float.
_encode = msgspec.json.Encoder(decimal_format="number").encode


def as_json(body: Any) -> Response:
    """An answer with a body of JSON."""
    return Response(_encode(body), media_type="application/json")
