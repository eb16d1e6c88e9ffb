"""What the routes of one gateway share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from starlette.requests import Request

from taximeter import Meter
from taximeter.spool.pipeline import Pipeline
from taximeter_gateway.bodies import Memory
from taximeter_gateway.delivery import Delivery
from taximeter_gateway.errors import BusyError
from taximeter_gateway.keys import Caller, KeyRing
from taximeter_gateway.metrics import Metrics
from taximeter_gateway.settings import Settings


@dataclass(frozen=True)
class Gateway:
    """The parts of a gateway that runs."""

    settings: Settings
    pipeline: Pipeline
    meter: Meter
    keys: KeyRing
    memory: Memory
    delivery: Delivery
    metrics: Metrics

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place among the requests that are served at a time.

        Raises:
            BusyError: There is none.
        """
        waiting = self.metrics.waiting
        if waiting.count >= self.settings.gateway_requests_max:
            raise BusyError("Too many requests wait already.")
        with waiting:
            yield


def gateway_of(request: Request) -> Gateway:
    """The gateway that serves a request."""
    gateway: Gateway = request.app.state.gateway
    return gateway


async def caller_of(request: Request) -> Caller:
    """Who sent a request, by its key."""
    return await gateway_of(request).keys.caller(request.headers.get("authorization"))
