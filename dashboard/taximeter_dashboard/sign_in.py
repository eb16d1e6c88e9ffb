"""Signing in: by a link that works once, and out."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Request
from starlette.responses import RedirectResponse, Response

from taximeter_dashboard.errors import SignInNeeded
from taximeter_dashboard.house import SESSION_COOKIE, CurrentHouse
from taximeter_dashboard.render import base
from taximeter_dashboard.viewers import SESSION_SECONDS
from taximeter_db.reading import access

router = APIRouter()


@router.get("/sign-in/{code}", include_in_schema=False)
def use_link(request: Request, house: CurrentHouse, code: Annotated[str, Path(max_length=16_000)]) -> Response:
    """Use up a one-time link and begin a session."""
    viewer, number, expires_at = house.keys.read_sign_in_code(code)
    with house.database() as conn:
        if not access.use_code(conn, number, expires_at):
            raise SignInNeeded("This link was used already; it works once. Ask for another.")
    answer = RedirectResponse(f"{base(request)}/", 303)
    answer.set_cookie(
        SESSION_COOKIE,
        house.keys.session(viewer),
        max_age=SESSION_SECONDS,
        path=base(request) or "/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )
    return answer


@router.post(
    "/api/v1/sign-in-links",
    response_model=dict[str, str],
    responses={200: {"content": {"application/json": {"example": {"path": "/sign-in/eyJhbGciOi…"}}}}},
)
def make_link(request: Request, house: CurrentHouse) -> Response:
    """For the host platform's server: trade a token for a path to which it sends the person's browser.

    The path works once, so that no token needs to travel through a browser.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise SignInNeeded("Bring the person's token in the Authorization header.")
    viewer = house.keys.read_host_token(token.strip())
    body = {"path": f"{base(request)}/sign-in/{house.keys.sign_in_code(viewer)}"}
    return Response(msgspec.json.encode(body), media_type="application/json")


@router.post("/sign-out", include_in_schema=False)
def sign_out(request: Request) -> Response:
    """End the session of this browser."""
    answer = RedirectResponse(f"{base(request)}/", 303)
    answer.delete_cookie(SESSION_COOKIE, path=base(request) or "/")
    return answer
