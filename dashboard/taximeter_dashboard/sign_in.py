"""Signing in: by a link that works once, or through the host's OpenID Connect provider. And out."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import msgspec
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import RedirectResponse, Response

from taximeter_dashboard import api_documents as documents
from taximeter_dashboard import api_problems
from taximeter_dashboard.claims import Viewer
from taximeter_dashboard.errors import NotFound, SignInNeeded
from taximeter_dashboard.house import FLOW_COOKIE, SESSION_COOKIE, CurrentHouse, House
from taximeter_dashboard.oidc import FLOW_SECONDS, Provider
from taximeter_dashboard.render import base, render, safe_path
from taximeter_dashboard.viewers import TRADED_LINK_SECONDS
from taximeter_db.reading import access

router = APIRouter()


def _outside(house: House) -> str:
    """Where people find the page, prefix included; never from a request's Host header, which anybody may choose."""
    return house.settings.dashboard_url.rstrip("/")


def _is_secure(request: Request, house: House) -> bool:
    return request.url.scheme == "https" or house.settings.dashboard_url.startswith("https://")


def _begin_session(request: Request, house: House, viewer: Viewer, path: str) -> Response:
    answer = RedirectResponse(path, 303)
    answer.set_cookie(
        SESSION_COOKIE,
        house.keys.session(viewer),
        max_age=house.settings.session_seconds,
        path=base(request) or "/",
        secure=_is_secure(request, house),
        httponly=True,
        samesite="lax",
    )
    return answer


@router.get("/sign-in/{code}", include_in_schema=False)
def use_link(request: Request, house: CurrentHouse, code: Annotated[str, Path(max_length=16_000)]) -> Response:
    """Use up a one-time link and begin a session."""
    viewer, number, expires_at = house.keys.read_sign_in_code(code)
    with house.database() as conn:
        if not access.use_code(conn, number, expires_at):
            raise SignInNeeded("This link was used already; it works once. Ask for another.")
    return _begin_session(request, house, viewer, f"{base(request)}/")


@router.post("/api/v1/sign-in-links", response_model=documents.LinkDocument, responses=api_problems.WRITE_PROBLEMS)
def make_link(request: Request, house: CurrentHouse) -> Response:
    """For the host platform's server: trade a token for a path to which it sends the person's browser.

    The path works once and within five minutes, so that no token needs to travel through a browser.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise SignInNeeded("Bring the person's token in the Authorization header.")
    viewer = house.keys.read_host_token(token.strip())
    code = house.keys.sign_in_code(viewer, TRADED_LINK_SECONDS)
    body = {"path": f"{base(request)}/sign-in/{code}"}
    return Response(msgspec.json.encode(body), media_type="application/json")


def _provider(house: House) -> Provider:
    if house.provider is None:
        raise NotFound
    return house.provider


@router.get("/sign-in", include_in_schema=False)
def begin(request: Request, house: CurrentHouse, back: Annotated[str, Query(max_length=2_000)] = "") -> Response:
    """Send the browser to the provider."""
    redirect_uri = f"{_outside(house)}/signed-in"
    address, cookie = _provider(house).begin(redirect_uri, safe_path(back, f"{base(request)}/"))
    answer = RedirectResponse(address, 303)
    answer.set_cookie(
        FLOW_COOKIE,
        cookie,
        max_age=FLOW_SECONDS,
        path=base(request) or "/",
        secure=_is_secure(request, house),
        httponly=True,
        samesite="lax",  # the way back from the provider is a navigation from another site
    )
    return answer


@router.get("/signed-in", include_in_schema=False)
def finish(request: Request, house: CurrentHouse) -> Response:
    """The way back from the provider: check everything, and begin a session."""
    provider = _provider(house)
    viewer, back = provider.finish(request.cookies.get(FLOW_COOKIE, ""), request.query_params)
    answer = _begin_session(request, house, viewer, back)
    answer.delete_cookie(FLOW_COOKIE, path=base(request) or "/")
    return answer


@router.post("/sign-out", include_in_schema=False)
def sign_out(request: Request, house: CurrentHouse) -> Response:
    """End the session, in this browser and wherever its cookie was copied to."""
    cookie = request.cookies.get(SESSION_COOKIE)
    if cookie:
        try:
            session = house.keys.read_session(cookie)
        except SignInNeeded:
            session = None
        if session is not None:
            with house.database() as conn:
                access.use_code(conn, session.number, session.ends_at)
    answer = RedirectResponse(f"{base(request)}/signed-out", 303)
    answer.delete_cookie(SESSION_COOKIE, path=base(request) or "/")
    return answer


@router.get("/signed-out", include_in_schema=False)
def signed_out(request: Request, house: CurrentHouse) -> Response:
    """Say so; the provider's own session ends by a link, for a form must not lead to another site."""
    end = house.provider.end_session_address(f"{_outside(house)}/signed-out") if house.provider else None
    return render(
        request,
        "message.html",
        title="Signed out",
        detail="You are signed out.",
        retry=False,
        number=None,
        action=(end, "Sign out there, too") if end else sign_in_action(request, house, ""),
    )


def sign_in_action(request: Request, house: House, back: str) -> tuple[str, str] | None:
    """The link by which somebody can sign in, with its words; None where they need a link from the host."""
    if house.provider is not None:
        return f"{base(request)}/sign-in{'?back=' + quote(back, safe='') if back else ''}", "Sign in"
    if house.settings.dashboard_sign_in_url:
        return house.settings.dashboard_sign_in_url.replace("{back}", quote(back, safe="")), "Sign in"
    return None
