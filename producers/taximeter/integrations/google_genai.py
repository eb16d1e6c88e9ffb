"""Google's Gen AI SDK: ``meter.wrap(genai.Client())``, or its ``client.aio`` alone.

A function that the SDK calls by itself makes several requests of one ``generate_content``, whose answer reports the last
one's usage alone; a continued answer is several requests too. So what is metered is each request: the wrapped client is a
copy of the client, of the same class, whose ``models`` send through the meter, and its chats with them.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, NoReturn

from taximeter.calls.attribution import Attribution
from taximeter.errors import ConfigurationError, NotMeteredError
from taximeter.integrations import bounds
from taximeter.integrations.following import Metering, Method, seam_of
from taximeter.integrations.iterating import shown, shown_async

_CONTENT: Final = Method("google.generate_content", limits=bounds.GOOGLE)
_WHOLE: Final = {
    "_generate_content": _CONTENT,
    "_embed_content": Method("google.embed_content", limits=bounds.INPUT_ALONE),
    "_generate_images": Method("openai.images"),
}
_STREAM: Final = "_generate_content_stream"
_SENDING: Final = frozenset({"generate_content", "generate_content_stream", "embed_content", "generate_images"})
_END: Final = object()
_FREE_OF_MODELS: Final = frozenset({"count_tokens", "compute_tokens", "get", "list", "update", "delete"})
_FREE: Final = frozenset({"get", "list", "delete", "cancel"})
_KEPT: Final = frozenset(
    {
        "_api_client",
        "_debug_config",
        "_http_options",
        "_files",
        "_operations",
        "_webhooks",
        "_environments",
        "_credentials",
        "_nextgen_client_instance",
    }
)
"""Parts of a client that cost nothing."""
_RENAMED: Final = {"_tokens": "auth_tokens"}


def wrap(client: Any, metering: Metering) -> Any:
    """A copy of the client that is metered.

    Raises:
        ConfigurationError: It is not made as the versions that are known here.
    """
    parts = vars(client)
    if not {"_models", "_api_client"} <= parts.keys():
        raise ConfigurationError(
            f"{type(client).__module__}.{type(client).__qualname__} is not a client that can be wrapped; wrap a"
            " google.genai.Client, or its aio"
        )
    if metering.provider is None:
        provider = "google-vertex" if parts["_api_client"].vertexai else "google"
        metering = dataclasses.replace(metering, provider=provider)
    wrapped = copy.copy(client)
    wrapped._taximeter_original = client  # noqa: SLF001 - a client closes its connections when nobody holds it
    for name, part in parts.items():
        if name == "_models":
            setattr(wrapped, name, _metered_models(part, metering))
        elif name == "_aio":
            setattr(wrapped, name, wrap(part, metering))
        elif name not in _KEPT:
            public = _RENAMED.get(name, name.removeprefix("_"))
            setattr(wrapped, name, _Part(public, functools.partial(getattr, client, public)))
    return wrapped


class _Part:
    """A part of a client of which only what costs nothing can be called."""

    def __init__(self, path: str, part: Callable[[], Any]) -> None:
        self._taximeter_part = (path, part)

    def __getattr__(self, name: str) -> Any:
        path, part = self._taximeter_part
        value = getattr(part(), name)
        if name in _FREE or value is None or isinstance(value, str | int):
            return value
        path = f"{path}.{name}"
        return functools.partial(_refuse, path) if callable(value) else _Part(path, lambda: value)


def _refuse(path: str, *_args: Any, **_kwargs: Any) -> NoReturn:
    raise NotMeteredError(
        f"{path} was not called: what it consumes cannot be followed; call it on the client itself and meter it by"
        " meter.track or meter.record"
    )


def _metered_models(models: Any, metering: Metering) -> Any:
    """A copy of ``client.models`` that sends through the meter."""
    wrapped = copy.copy(models)
    is_async = inspect.iscoroutinefunction(models.generate_content)
    for name in (*_WHOLE, _STREAM):
        if not hasattr(models, name):
            raise ConfigurationError(
                f"this version of google-genai sends its requests by other means than models.{name}, so that they cannot"
                " be followed"
            )
    for name, method in _WHOLE.items():
        send = getattr(models, name)
        setattr(wrapped, name, (_whole_async if is_async else _whole)(name, send, method, metering))
    stream = getattr(models, _STREAM)
    setattr(wrapped, _STREAM, (_stream_async if is_async else _stream)(stream, metering))
    wrapped.generate_content_stream = (_begun_async if is_async else _begun)(
        models.generate_content_stream, wrapped.generate_content_stream, metering
    )
    for name in dir(models):
        if not name.startswith("_") and name not in _SENDING | _FREE_OF_MODELS and callable(getattr(models, name)):
            setattr(wrapped, name, functools.partial(_refuse, f"models.{name}"))
    return wrapped


def _whole(name: str, send: Callable[..., Any], method: Method, metering: Metering) -> Callable[..., Any]:
    def call(**arguments: Any) -> Any:
        followed = metering.begin(method, f"models.{name[1:]}", arguments)
        with seam_of(followed):
            answer = send(**arguments)
        if followed is not None:
            followed.whole(_readable(answer))
        return answer

    return call


def _whole_async(name: str, send: Callable[..., Any], method: Method, metering: Metering) -> Callable[..., Any]:
    async def call(**arguments: Any) -> Any:
        followed = metering.begin(method, f"models.{name[1:]}", arguments)
        with seam_of(followed):
            answer = await send(**arguments)
        if followed is not None:
            followed.whole(_readable(answer))
        return answer

    return call


def _stream(send: Callable[..., Any], metering: Metering) -> Callable[..., Any]:
    def call(**arguments: Any) -> Iterator[Any]:
        followed = metering.begin(_CONTENT, "models.generate_content_stream", arguments)
        with seam_of(followed):
            chunks = send(**arguments)
        return chunks if followed is None else shown(followed, chunks)

    return call


def _stream_async(send: Callable[..., Any], metering: Metering) -> Callable[..., Any]:
    async def call(**arguments: Any) -> AsyncIterator[Any]:
        followed = metering.begin(_CONTENT, "models.generate_content_stream", arguments)
        with seam_of(followed):
            chunks = await send(**arguments)
        return chunks if followed is None else shown_async(followed, chunks)

    return call


def _begun(free: Callable[..., Any], metered: Callable[..., Any], metering: Metering) -> Callable[..., Any]:
    """A stream whose payer is the one that holds when it is asked for: the SDK's sends nothing before its first chunk."""

    def generate_content_stream(**arguments: Any) -> Iterator[Any]:
        payer = metering.payer()
        return free(**arguments) if payer is None else steps(metered(**arguments), payer)

    def steps(chunks: Iterator[Any], payer: Attribution) -> Iterator[Any]:
        while True:
            with payer:
                chunk = next(chunks, _END)
            if chunk is _END:
                return
            yield chunk

    return generate_content_stream


def _begun_async(free: Callable[..., Any], metered: Callable[..., Any], metering: Metering) -> Callable[..., Any]:
    async def generate_content_stream(**arguments: Any) -> AsyncIterator[Any]:
        payer = metering.payer()
        return await free(**arguments) if payer is None else steps(await metered(**arguments), payer)

    async def steps(chunks: AsyncIterator[Any], payer: Attribution) -> AsyncIterator[Any]:
        while True:
            with payer:
                chunk = await anext(chunks, _END)
            if chunk is _END:
                return
            yield chunk

    return generate_content_stream


def _readable(answer: Any) -> Any:
    """What can be read of an answer: a raw one's body, the number of images, the tokens that Vertex AI counts a text."""
    response = getattr(answer, "sdk_http_response", None)
    body = getattr(response, "body", None)
    if getattr(answer, "usage_metadata", None) is None and isinstance(body, str) and body:
        return json.loads(body)
    images = getattr(answer, "generated_images", None)
    if images is not None:
        return {"data": images}
    embeddings = getattr(answer, "embeddings", None)
    if embeddings and getattr(answer, "usage_metadata", None) is None:
        counts: list[Any] = [getattr(embedding.statistics, "token_count", None) for embedding in embeddings]
        if None not in counts:
            return {"usage_metadata": {"prompt_token_count": int(sum(counts))}}
    return answer
