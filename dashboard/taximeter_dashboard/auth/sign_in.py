"""Signing in: by a link that works once, or through the host's OpenID Connect provider. And out."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import msgspec
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import RedirectResponse, Response

from taximeter_dashboard.api import documents, problems
from taximeter_dashboard.auth.claims import Viewer
from taximeter_dashboard.auth.oidc import FLOW_SECONDS, Provider
from taximeter_dashboard.auth.viewers import TRADED_LINK_SECONDS
from taximeter_dashboard.context import FLOW_COOKIE, SESSION_COOKIE, AppContext, CurrentContext
from taximeter_dashboard.errors import NotFoundError, SignInNeededError
from taximeter_dashboard.pages.render import base, render, safe_path
from taximeter_db import access

router = APIRouter()


def _outside(app_context: AppContext) -> str:
    """Where people find the page, prefix included; never from a request's Host header, which anybody may choose."""
    return app_context.settings.dashboard_url.rstrip("/")


def _is_secure(request: Request, app_context: AppContext) -> bool:
    return request.url.scheme == "https" or app_context.settings.dashboard_url.startswith("https://")


def _begin_session(request: Request, app_context: AppContext, viewer: Viewer, path: str) -> Response:
    answer = RedirectResponse(path, 303)
    answer.set_cookie(
        SESSION_COOKIE,
        app_context.keys.session(viewer),
        max_age=app_context.settings.session_seconds,
        path=base(request) or "/",
        secure=_is_secure(request, app_context),
        httponly=True,
        samesite="lax",
    )
    return answer


@router.get("/sign-in/{code}", include_in_schema=False)
def use_link(request: Request, app_context: CurrentContext, code: Annotated[str, Path(max_length=16_000)]) -> Response:
    """Use up a one-time link and begin a session."""
    viewer, number, expires_at = app_context.keys.read_sign_in_code(code)
    with app_context.database() as conn:
        if not access.use_code(conn, number, expires_at):
            raise SignInNeededError("This link was used already; it works once. Ask for another.")
    return _begin_session(request, app_context, viewer, f"{base(request)}/")


@router.post("/api/v1/sign-in-links", response_model=documents.LinkDocument, responses=problems.WRITE_PROBLEMS)
def make_link(request: Request, app_context: CurrentContext) -> Response:
    """For the host platform's server: trade a token for a path to which it sends the person's browser.

    The path works once and within five minutes, so that no token needs to travel through a browser.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise SignInNeededError("Bring the person's token in the Authorization header.")
    viewer = app_context.keys.read_host_token(token.strip())
    code = app_context.keys.sign_in_code(viewer, TRADED_LINK_SECONDS)
    body = {"path": f"{base(request)}/sign-in/{code}"}
    return Response(msgspec.json.encode(body), media_type="application/json")


def _provider(app_context: AppContext) -> Provider:
    if app_context.provider is None:
        raise NotFoundError
    return app_context.provider


@router.get("/sign-in", include_in_schema=False)
def begin(
    request: Request, app_context: CurrentContext, back: Annotated[str, Query(max_length=2_000)] = ""
) -> Response:
    """Send the browser to the provider."""
    redirect_uri = f"{_outside(app_context)}/signed-in"
    address, cookie = _provider(app_context).begin(redirect_uri, safe_path(back, f"{base(request)}/"))
    answer = RedirectResponse(address, 303)
    answer.set_cookie(
        FLOW_COOKIE,
        cookie,
        max_age=FLOW_SECONDS,
        path=base(request) or "/",
        secure=_is_secure(request, app_context),
        httponly=True,
        samesite="lax",  # the way back from the provider is a navigation from another site
    )
    return answer


@router.get("/signed-in", include_in_schema=False)
def finish(request: Request, app_context: CurrentContext) -> Response:
    """The way back from the provider: check everything, and begin a session."""
    provider = _provider(app_context)
    viewer, back = provider.finish(request.cookies.get(FLOW_COOKIE, ""), request.query_params)
    answer = _begin_session(request, app_context, viewer, back)
    answer.delete_cookie(FLOW_COOKIE, path=base(request) or "/")
    return answer


@router.post("/sign-out", include_in_schema=False)
def sign_out(request: Request, app_context: CurrentContext) -> Response:
    """End the session, in this browser and wherever its cookie was copied to."""
    cookie = request.cookies.get(SESSION_COOKIE)
    if cookie:
        try:
            session = app_context.keys.read_session(cookie)
        except SignInNeededError:
            session = None
        if session is not None:
            with app_context.database() as conn:
                access.use_code(conn, session.number, session.ends_at)
    answer = RedirectResponse(f"{base(request)}/signed-out", 303)
    answer.delete_cookie(SESSION_COOKIE, path=base(request) or "/")
    return answer


@router.get("/signed-out", include_in_schema=False)
def signed_out(request: Request, app_context: CurrentContext) -> Response:
    """Say so; the provider's own session ends by a link, for a form must not lead to another site."""
    end = (
        app_context.provider.end_session_address(f"{_outside(app_context)}/signed-out")
        if app_context.provider
        else None
    )
    return render(
        request,
        "message.html",
        title="Signed out",
        detail="You are signed out.",
        retry=False,
        number=None,
        action=(end, "Sign out there, too") if end else sign_in_action(request, app_context, ""),
    )


def sign_in_action(request: Request, app_context: AppContext, back: str) -> tuple[str, str] | None:
    """The link by which somebody can sign in, with its words; None where they need a link from the host."""
    if app_context.provider is not None:
        return f"{base(request)}/sign-in{'?back=' + quote(back, safe='') if back else ''}", "Sign in"
    if app_context.settings.dashboard_sign_in_url:
        return app_context.settings.dashboard_sign_in_url.replace("{back}", quote(back, safe="")), "Sign in"
    return None
