"""Serving the application: a socket of our own, an orderly end, and connections that bring nothing are closed."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
from types import FrameType
from typing import Any, Final

import uvicorn
from prometheus_client import start_http_server
from uvicorn.protocols.http.h11_impl import H11Protocol

from taximeter_db import json_logs
from taximeter_gateway.errors import ListenError
from taximeter_gateway.settings import Settings

HEAD_SECONDS: Final = 15.0
"""How long a connection may take until it has brought the whole head of a request, the first and each further one."""
_STOP_SECONDS: Final = 5
"""How much longer than a confirm may take the end waits for requests that are being served."""


class _PatientProtocol(H11Protocol):  # type: ignore[misc,unused-ignore]
    """A connection that is closed where a request does not begin in time. uvicorn by itself would wait for ever."""

    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._forget()

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget()
        elif self._limit is None and not self.transport.is_closing():
            self._limit = self.loop.call_later(HEAD_SECONDS, self._close)

    def _forget(self) -> None:
        limit, self._limit = self._limit, None
        if limit is not None:
            limit.cancel()

    def _close(self) -> None:
        self._limit = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


def serve(app: Any, settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM, which end the process with exit code 0 once every request has its answer.

    Raises:
        ListenError: A port is taken.
    """
    _raise_descriptors()
    as_json = settings.log_format == json_logs.JSON
    if as_json:
        json_logs.start()
    listener = _listen(settings.gateway_host, settings.gateway_port)
    _serve_metrics(app.state.metrics.registry, settings)
    config = uvicorn.Config(
        app,
        http=_PatientProtocol,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=int(HEAD_SECONDS),
        timeout_graceful_shutdown=settings.gateway_confirm_seconds + _STOP_SECONDS,
        backlog=2048,
        lifespan="on",
        log_config=None if as_json else uvicorn.config.LOGGING_CONFIG,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)  # uvicorn raises the signal that stopped it once more when it has ended
    uvicorn.Server(config).run(sockets=[listener])


def _serve_metrics(registry: Any, settings: Settings) -> None:
    if not settings.gateway_metrics_port:
        return
    try:
        start_http_server(settings.gateway_metrics_port, settings.gateway_metrics_host, registry)
    except OSError as error:
        raise ListenError(settings.gateway_metrics_host, settings.gateway_metrics_port, error) from error


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def _raise_descriptors() -> None:
    """Every connection takes a descriptor, and slow clients may be many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 65_536) if hard != resource.RLIM_INFINITY else 65_536
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # IPPROTO_TCP named: without it uvicorn leaves Nagle's algorithm on, and every answer is 40 ms late.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, TypeError, UnicodeError) as error:  # the latter for a host that cannot be encoded
        listener.close()
        raise ListenError(host, port, error) from error
    return listener
