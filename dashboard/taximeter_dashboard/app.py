"""The application: JSON API and page, to run alone or to mount in a host's ASGI application."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response

from taximeter_dashboard import problems
from taximeter_dashboard.api import account, documents, routes
from taximeter_dashboard.api import budgets as api_budgets
from taximeter_dashboard.api.middleware import ApiMiddleware
from taximeter_dashboard.auth import sign_in
from taximeter_dashboard.context import AppContext, Explain, Held
from taximeter_dashboard.errors import NotFoundError, ProblemError
from taximeter_dashboard.export import routes as export
from taximeter_dashboard.pages import analysis, budgets, live, notices, owner_settings, render, statements, tracking
from taximeter_dashboard.security import SecurityMiddleware
from taximeter_dashboard.settings import Settings
from taximeter_db.crypto.master_keys import MasterKeys

BODY_BYTES_MAX: Final = 64 * 1024
"""Forms of a few fields are all that anybody sends here; a larger body is answered by 413 and not read."""


def create_app(
    settings: Settings,
    explain: Explain | None = None,
    masters: MasterKeys | None = None,
    held: Held | None = None,
) -> FastAPI:
    """Make the application.

    Args:
        settings: See docs/dashboard.md.
        explain: Makes the receipt of a usage; without it, details show quantities and cost alone.
        masters: Master keys, to show inputs and outputs that are stored encrypted.
        held: Says what open holds hold; without it, nothing is shown of them.

    Returns:
        An ASGI application. A host that mounts it under a prefix closes ``app.state.app_context`` itself.
    """
    app_context = AppContext(settings, explain, masters, held)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        app_context.close()

    app = FastAPI(
        title="Taximeter",
        version="1",
        description="Balances, usages and payments of a workspace. Amounts are exact decimal strings in USD.",
        docs_url=None,
        redoc_url=None,
        max_body_size=BODY_BYTES_MAX,
        lifespan=lifespan,
    )
    app.state.app_context = app_context
    app.state.watch = live.Watch(app_context)
    app.state.theme = render.ThemeFiles(settings)
    app.add_middleware(ApiMiddleware, requests_per_minute=settings.api_requests_per_minute)
    app.add_middleware(GZipMiddleware, minimum_size=1_000, compresslevel=5)
    app.add_middleware(SecurityMiddleware)
    for router in (
        routes.router,
        api_budgets.router,
        account.router,
        routes.lists,
        routes.health,
        sign_in.router,
        analysis.router,
        export.router,
        owner_settings.router,
        notices.router,
        budgets.router,
        live.router,
        statements.router,
        tracking.router,
        render.router,
    ):
        app.include_router(router)
    _handle_errors(app)
    _document_problems(app)
    return app


def _handle_errors(app: FastAPI) -> None:
    def tell(request: Request, problem: ProblemError) -> Response:
        inside = request.url.path.removeprefix(render.base(request))
        if inside.startswith(("/api/", "/openapi.json", "/health")):
            return problems.answer(problem)
        template = "_failed.html" if render.wants_panel(request) or render.wants_part(request) else "message.html"
        texts: dict[str, Any] = {"title": problem.title, "detail": problem.detail, "retry": problem.status >= 500}
        texts["number"] = problems.number_of(problem) if texts["retry"] else None
        if template == "_failed.html" and problem.status >= 500:
            what = render.panel_name(inside)
            texts |= {"title": what, "detail": f"{what} could not be loaded."}
        action = None
        if problem.status == 401 and request.method == "GET":
            back = "" if inside.startswith("/sign") else request.url.path
            action = sign_in.sign_in_action(request, app.state.app_context, back)
        return render.render(request, template, status=problem.status, headers=problem.headers, action=action, **texts)

    @app.exception_handler(ProblemError)
    def on_problem(request: Request, error: ProblemError) -> Response:
        return tell(request, error)

    @app.exception_handler(RequestValidationError)
    def on_invalid(request: Request, error: RequestValidationError) -> Response:
        return tell(request, problems.invalid(error))

    @app.exception_handler(HTTPException)
    def on_http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            return tell(request, NotFoundError())
        return tell(request, problems.http(error.status_code, str(error.detail), error.headers))

    @app.exception_handler(Exception)
    def on_failure(request: Request, error: Exception) -> Response:
        return tell(request, problems.unexpected(error))


def _document_problems(app: FastAPI) -> None:
    """Put the shape of problems, and how to sign in, into the OpenAPI document."""
    plain = app.openapi

    def openapi() -> dict[str, object]:
        document = plain()
        components = document.setdefault("components", {})
        components.setdefault("schemas", {})["ProblemDocument"] = documents.ProblemDocument.model_json_schema()
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
