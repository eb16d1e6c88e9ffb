"""The one home of the events that the tests publish, as a tool in any language would send them."""

from __future__ import annotations

import itertools
import os
import secrets
from datetime import UTC, datetime
from typing import Any

from taximeter import names

SOURCE = "/tests"
TIME = "2026-11-22T10:00:00Z"
"""When the events happened whose time does not matter."""

_numbers = itertools.count(1)


def cloud_event(
    kind: str, data: Any, *, workspace: str = "acme", event_id: str | None = None, **attributes: Any
) -> Any:
    """The CloudEvent of the contract around any data."""
    return {
        "specversion": "1.0",
        "id": event_id or f"{os.getpid():x}-{next(_numbers):08d}-{secrets.token_hex(4)}",
        "source": SOURCE,
        "type": kind,
        "subject": workspace,
        "time": TIME,
        "data": data,
        **attributes,
    }


def usage_event(
    workspace: str = "acme", event_id: str | None = None, *, time: str = TIME, **data: Any
) -> dict[str, Any]:
    """A usage event: one request of the tool "chat", unless ``data`` says something else."""
    data = {"tool": "chat", "quantities": {"requests": 1}, **data}
    made: dict[str, Any] = cloud_event(names.USAGE_TYPE, data, workspace=workspace, event_id=event_id, time=time)
    return made


def payment_event(
    workspace: str = "acme", amount: Any = "25.00", event_id: str | None = None, *, time: str = TIME, **data: Any
) -> dict[str, Any]:
    """A payment event: a top-up, unless ``data`` says something else."""
    data = {"amount": amount, "kind": "top_up", **data}
    made: dict[str, Any] = cloud_event(names.PAYMENT_TYPE, data, workspace=workspace, event_id=event_id, time=time)
    return made


def now_text() -> str:
    """This moment, as an event's time."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
