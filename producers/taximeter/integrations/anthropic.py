"""Clients of Anthropic's library: Anthropic's own API, and Claude on Vertex AI."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from taximeter.integrations import bounds, http_answers
from taximeter.integrations.following import Metering, Method
from taximeter.integrations.proxy import proxy_of

FREE_TREES: Final = (
    "models.",
    "files.",
    "organization.",
    "beta.files.",
    "beta.models.",
    "beta.skills.",
    "beta.webhooks.",
)
FREE_NAMES: Final = frozenset({"cancel", "close", "count_tokens", "delete", "list", "results", "retrieve"})
FREE_PATHS: Final = frozenset({"close", "is_closed"})
ADVICE: Final = {
    "messages.batches.create": 'record quantities.read("anthropic.messages", message) of each result',
    "beta.messages.batches.create": 'record quantities.read("anthropic.messages", message) of each result',
    "beta.messages.tool_runner": "call beta.messages.create, and run the tools yourself",
}


def wrap(client: Any, metering: Metering) -> Any:
    """Wrap a client; see `taximeter.Meter.wrap`."""
    kinds = [kind.__name__ for kind in type(client).__mro__]
    on_bedrock = any("Bedrock" in name for name in kinds)
    if metering.provider is None:
        # Claude costs the same on Bedrock and Vertex AI as the price books of genai-prices list it there.
        provider = "aws" if on_bedrock else "google" if any("Vertex" in name for name in kinds) else "anthropic"
        metering = dataclasses.replace(metering, provider=provider)
    surface = ON_BEDROCK if on_bedrock else SURFACE
    return proxy_of(client, surface, metering, is_async="AsyncAPIClient" in kinds)


def _is_resource(value: object) -> bool:
    return type(value).__module__.startswith(("anthropic.resources", "anthropic.lib"))


def _is_free(path: str) -> bool:
    name = path.rpartition(".")[2]
    return path.startswith(FREE_TREES) or path in FREE_PATHS or (name in FREE_NAMES and "." in path)


def _streams(arguments: Mapping[str, Any]) -> str | None:
    if arguments.get("stream") is True:
        return "Bedrock's streams through this client cannot be followed; wrap boto3's client, or do not stream"
    return None


_MESSAGES: Final = Method("anthropic.messages", limits=bounds.MESSAGES)
METHODS: Final = {
    "messages.create": _MESSAGES,
    "messages.parse": _MESSAGES,
    "messages.stream": Method("anthropic.messages", limits=bounds.MESSAGES, is_deferred=True),
}
METHODS.update({f"beta.{path}": method for path, method in tuple(METHODS.items())})

SURFACE: Final = http_answers.surface(METHODS, is_free=_is_free, is_branch=_is_resource, advice=ADVICE)
ON_BEDROCK: Final = dataclasses.replace(
    SURFACE,
    methods={
        path: dataclasses.replace(method, refuse=_streams) for path, method in METHODS.items() if not method.is_deferred
    },
)
