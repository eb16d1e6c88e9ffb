"""The application."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from taximeter import Meter
from taximeter.spool.lanes import BatchSettings
from taximeter.spool.pipeline import Pipeline, PipelineSettings
from taximeter_gateway import holds, problems, routes
from taximeter_gateway.bodies import Memory
from taximeter_gateway.context import Gateway
from taximeter_gateway.delivery import Delivery
from taximeter_gateway.errors import NotFoundError, ProblemError
from taximeter_gateway.keys import KeyRing
from taximeter_gateway.metrics import Metrics
from taximeter_gateway.settings import Settings

_FLUSH_SECONDS: Final = 5.0
"""How long the end waits for what nobody waits for any more; the rest stays in the spool for the next start."""


@dataclass(frozen=True, kw_only=True)
class Publishing:
    """What the SDK's own settings say: where the spool is, what signs messages on Redis, and where an owner pays."""

    spool: Path
    producer_key: str | None = field(default=None, repr=False)
    top_up_url: str | None = None


def create_app(settings: Settings, publishing: Publishing) -> FastAPI:
    """Make the application; its spool, connections and threads live as long as its lifespan.

    Raises:
        taximeter.TaximeterError: An address cannot be understood, or the spool cannot be written.
    """
    pipeline = _pipeline(settings, publishing)
    meter = Meter(redis_url=settings.redis_url, top_up_url=publishing.top_up_url)
    memory = Memory(settings.gateway_held_bytes_max)
    metrics = Metrics(lambda: pipeline.stats().spooled_events, lambda: memory.held_bytes)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        delivery = Delivery(
            pipeline,
            confirm_seconds=settings.gateway_confirm_seconds,
            spool_bytes_max=settings.gateway_spool_bytes_max,
        )
        keys = KeyRing(settings.database_url)
        app.state.gateway = Gateway(settings, pipeline, meter, keys, memory, delivery, metrics)
        keys.start()
        try:
            yield
        finally:
            keys.close()
            meter.close()
            pipeline.close(_FLUSH_SECONDS)

    app = FastAPI(
        title="Taximeter gateway",
        version="1",
        description="Usage events and payments over HTTP, for tools without AMQP or Redis.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.metrics = metrics
    app.add_middleware(_Watched, metrics)
    app.include_router(routes.router)
    app.include_router(holds.router)
    _handle_errors(app)
    _document_keys(app)
    return app


def _pipeline(settings: Settings, publishing: Publishing) -> Pipeline:
    return Pipeline(
        PipelineSettings(
            broker_url=settings.broker_url,
            producer_key=publishing.producer_key,
            directory=publishing.spool,
            # What is taken is bounded before; this is for what is in between.
            spool_bytes_max=2 * settings.gateway_spool_bytes_max,
            fsync=False,
            event_bytes_max=settings.event_bytes_max,
            batch=BatchSettings(events_max=500, bytes_max=256 * 1024, linger_seconds=0.002),
            shards=settings.shards,
        )
    )


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(ProblemError)
    def on_problem(_request: Request, error: ProblemError) -> Response:
        return problems.answer(error)

    @app.exception_handler(RequestValidationError)
    def on_invalid(_request: Request, error: RequestValidationError) -> Response:
        parts = [f"{'.'.join(str(part) for part in fault['loc'][1:])}: {fault['msg']}" for fault in error.errors()]
        return problems.answer(ProblemError("; ".join(parts)[:1000] + ".", status=422, title="Not valid"))

    @app.exception_handler(HTTPException)
    def on_http(_request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            return problems.answer(NotFoundError("There is nothing at this address."))
        return problems.answer(problems.http(error.status_code, str(error.detail), error.headers))

    @app.exception_handler(Exception)
    def on_failure(_request: Request, error: Exception) -> Response:
        return problems.answer(problems.unexpected(error))


def _document_keys(app: FastAPI) -> None:
    """Say in the OpenAPI document how a request bears its key."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        components = document.setdefault("components", {})
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]


class _Watched:
    """ASGI middleware: counts and times requests, by the path of their route."""

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500

        async def watched(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - begun)
