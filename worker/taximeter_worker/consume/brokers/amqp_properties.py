"""What a sender gave with a RabbitMQ message beside its body, as plain JSON values."""

from __future__ import annotations

import base64
import datetime as dt
import math
from collections.abc import Mapping
from typing import Any, Final

_KEPT: Final = (
    "content_encoding",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "timestamp",
    "type",
    "user_id",
    "app_id",
)
_OF_THE_BROKER: Final = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")
"""Headers that RabbitMQ adds on the way: they differ from one delivery of a message to the next."""
_LEVELS_MAX: Final = 16


def properties_of(properties: Mapping[str, Any]) -> dict[str, Any] | None:
    """The properties that the sender gave, under py-amqp's names; its ``application_headers`` are ``headers``."""
    kept = {name: plain(properties[name]) for name in _KEPT if properties.get(name) is not None}
    if headers := properties.get("application_headers"):
        senders = {name: plain(value) for name, value in headers.items() if not name.startswith(_OF_THE_BROKER)}
        if senders:
            kept["headers"] = senders
    return kept or None


def plain(value: Any, level: int = 0) -> Any:
    """A property's value as JSON has it: times in RFC 3339, bytes as text or in Base64, decimals as text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, dt.datetime):
        return value.replace(tzinfo=value.tzinfo or dt.UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes | bytearray | memoryview):
        octets = bytes(value)
        try:
            return octets.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(octets).decode()}
    if level < _LEVELS_MAX:
        if isinstance(value, Mapping):
            return {str(name): plain(item, level + 1) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item, level + 1) for item in value]
    return str(value) if not isinstance(value, Mapping | list | tuple) else "nested too deeply to be kept"
