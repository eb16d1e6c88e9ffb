"""Cohere's SDK: ``meter.wrap(ClientV2())``, also the first version's clients and the async ones."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from taximeter.integrations import bounds
from taximeter.integrations.following import Followed, Metering, Method
from taximeter.integrations.iterating import shown, shown_async
from taximeter.integrations.proxy import Surface, proxy_of

_FREE: Final = frozenset({"close", "tokenize", "detokenize", "check_api_key", "fetch_tokenizer"})
_FREE_TREES: Final = ("models.", "datasets.", "connectors.")


def wrap(client: Any, metering: Metering) -> Any:
    """A stand-in for the client."""
    if metering.provider is None:
        metering = dataclasses.replace(metering, provider="cohere")
    return proxy_of(client, _SURFACE, metering, is_async=False)


def _is_free(path: str) -> bool:
    return path in _FREE or path.startswith(_FREE_TREES)


def _is_branch(value: object) -> bool:
    return type(value).__module__.startswith("cohere.") and not isinstance(value, type | str | int)


def _follow(followed: Followed, answer: Any, _view: str | None) -> Any:
    if hasattr(answer, "__next__"):
        return shown(followed, answer)
    if hasattr(answer, "__anext__"):
        return shown_async(followed, answer)
    followed.whole(answer)
    return answer


async def _follow_async(followed: Followed, answer: Any, view: str | None) -> Any:
    return _follow(followed, answer, view)


_CHAT: Final = Method("cohere.chat", limits=bounds.TEXT)
_METHODS: Final = {
    "chat": _CHAT,
    "chat_stream": _CHAT,
    "generate": _CHAT,
    "generate_stream": _CHAT,
    "summarize": _CHAT,
    "classify": _CHAT,
    "embed": Method("cohere.embed", limits=bounds.INPUT_ALONE),
    "rerank": Method("cohere.rerank"),
}
_SURFACE: Final = Surface(
    methods={**_METHODS, **{f"v2.{path}": method for path, method in _METHODS.items()}},
    is_free=_is_free,
    is_branch=_is_branch,
    follow=_follow,
    follow_async=_follow_async,
)
