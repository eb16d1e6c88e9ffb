"""Mistral's SDK: ``meter.wrap(Mistral())``, whose clients have sync and async methods side by side."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable
from typing import Any, Final

from taximeter.integrations import bounds
from taximeter.integrations.following import Followed, Metering, Method
from taximeter.integrations.iterating import shown, shown_async
from taximeter.integrations.proxy import Surface, proxy_of

_FREE: Final = frozenset(
    {
        "list",
        "get",
        "retrieve",
        "delete",
        "cancel",
        "update",
        "archive",
        "unarchive",
        "upload",
        "download",
        "get_signed_url",
        "get_history",
        "get_messages",
        "count_input_tokens",
        "get_version",
        "list_versions",
    }
)
_FREE_TREES: Final = ("models.", "files.", "beta.agents.", "beta.conversations.", "batch.", "audio.voices.")


def wrap(client: Any, metering: Metering) -> Any:
    """A stand-in for the client."""
    if metering.provider is None:
        metering = dataclasses.replace(metering, provider="mistral")
    return proxy_of(client, _SURFACE, metering, is_async=False)


def _is_free(path: str) -> bool:
    name = path.rpartition(".")[2].removesuffix("_async")
    return path.startswith(_FREE_TREES) and name in _FREE


def _is_branch(value: object) -> bool:
    return any(kind.__module__.startswith("mistralai.") and kind.__name__ == "BaseSDK" for kind in type(value).__mro__)


def _follow(followed: Followed, answer: Any, _view: str | None) -> Any:
    if hasattr(answer, "generator"):
        follows = shown_async if hasattr(answer, "__aiter__") else shown
        answer.generator = follows(followed, answer.generator)
        answer.close = (_ending_async if follows is shown_async else _ending)(followed, type(answer).close, answer)
        weakref.finalize(answer, followed.end)
    else:
        followed.whole(answer)
    return answer


def _ending(followed: Followed, close: Callable[[Any], None], stream: Any) -> Callable[[], None]:
    known = weakref.ref(stream)

    def closing() -> None:
        try:
            close(known())
        finally:
            followed.end()

    return closing


def _ending_async(followed: Followed, close: Callable[[Any], Any], stream: Any) -> Callable[[], Any]:
    known = weakref.ref(stream)

    async def closing() -> None:
        try:
            await close(known())
        finally:
            followed.end()

    return closing


async def _follow_async(followed: Followed, answer: Any, view: str | None) -> Any:
    return _follow(followed, answer, view)


_CHAT: Final = Method("mistral.chat", limits=bounds.TEXT)
_AUDIO: Final = Method("mistral.chat")
_METHODS: Final = {
    path: method
    for plain, method in {
        "chat.complete": _CHAT,
        "chat.stream": _CHAT,
        "chat.parse": _CHAT,
        "chat.parse_stream": _CHAT,
        "agents.complete": _CHAT,
        "agents.stream": _CHAT,
        "fim.complete": _CHAT,
        "fim.stream": _CHAT,
        "embeddings.create": Method("mistral.chat", limits=bounds.INPUT_ALONE),
        "ocr.process": Method("mistral.ocr"),
        "audio.transcriptions.complete": _AUDIO,
        "audio.transcriptions.stream": _AUDIO,
    }.items()
    for path in (plain, f"{plain}_async")
}
_SURFACE: Final = Surface(
    methods=_METHODS, is_free=_is_free, is_branch=_is_branch, follow=_follow, follow_async=_follow_async
)
