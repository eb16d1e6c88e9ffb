"""Answers over HTTP, whole or as server-sent events, of clients that show httpx's response (openai, anthropic).

A stream is read where its bytes are handed out (``response.iter_bytes``), as it is consumed: so the client's own objects
and helpers stay what they are.
"""

from __future__ import annotations

import copy
import re
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from taximeter.integrations.following import Followed, Method
from taximeter.integrations.proxy import Surface

RAW: Final = "raw"
STREAMING: Final = "streaming"
VIEWS: Final = {"with_raw_response": RAW, "with_streaming_response": STREAMING}

_block_ends = re.compile(rb"\r\n\r\n|\n\n|\r\r").search
_lines = re.compile(rb"\r\n|\n|\r").split
_DONE: Final = b"[DONE]"


def surface(
    methods: Mapping[str, Method],
    *,
    is_free: Callable[[str], bool],
    is_branch: Callable[[object], bool],
    advice: Mapping[str, str],
) -> Surface:
    """What such a client offers; the arguments are those of `Surface`."""
    return Surface(
        methods=methods,
        is_free=is_free,
        is_branch=is_branch,
        follow=follow,
        follow_async=follow_async,
        enter=enter,
        enter_async=enter_async,
        views=VIEWS,
        deferred_views=frozenset({STREAMING}),
        clones=frozenset({"copy", "with_options"}),
        advice=advice,
    )


def follow(followed: Followed, answer: Any, view: str | None) -> Any:
    """Read the answer of a sync or an async client; `proxy.Surface.follow`."""
    if view == RAW:
        _follow_response(followed, answer.http_response)
    elif (response := _response_of_stream(answer)) is not None:
        _follow_stream(followed, answer, response)
    elif (response := getattr(answer, "response", None)) is not None and hasattr(response, "iter_bytes"):
        _follow_response(followed, response)  # binary content
    else:
        followed.whole(answer)
    return answer


async def follow_async(followed: Followed, answer: Any, view: str | None) -> Any:
    """`proxy.Surface.follow_async`: the client has read what is not a stream."""
    return follow(followed, answer, view)


def enter(followed: Followed, entered: Any, view: str | None) -> None:
    """Read what a context manager gives; `proxy.Surface.enter`."""
    response = _response_within(entered, view)
    if not _is_events(response):
        response.read() if _is_json(response) else None
    _follow_response(followed, response)


async def enter_async(followed: Followed, entered: Any, view: str | None) -> None:
    """Read what an async context manager gives; `proxy.Surface.enter_async`."""
    response = _response_within(entered, view)
    if not _is_events(response) and _is_json(response):
        await response.aread()
    _follow_response(followed, response)


def _response_within(entered: Any, view: str | None) -> Any:
    if view == STREAMING:
        return entered.http_response
    return entered.response if hasattr(entered, "response") else entered._response  # noqa: SLF001 - of openai's helpers


def _response_of_stream(answer: Any) -> Any:
    response = getattr(answer, "response", None)
    return response if response is not None and hasattr(answer, "__stream__") else None


def _is_events(response: Any) -> bool:
    return str(response.headers.get("content-type", "")).startswith("text/event-stream")


def _is_json(response: Any) -> bool:
    return "json" in str(response.headers.get("content-type", ""))


def _follow_stream(followed: Followed, stream: Any, response: Any) -> None:
    if "_iterator" in vars(stream):
        # Made again of a copy: a generator that refers to its own stream would leave a dropped stream to the collector.
        twin = copy.copy(stream)
        del twin._iterator  # noqa: SLF001 - it refers to the stream
        stream._iterator = twin.__stream__()  # noqa: SLF001 - as the client's newer versions do
    _tee(followed, response)
    weakref.finalize(stream, followed.end)


def _follow_response(followed: Followed, response: Any) -> None:
    content = getattr(response, "_content", None)  # `content` raises while the body is unread
    if _is_events(response):
        if content is None:
            _tee(followed, response)
            weakref.finalize(response, followed.end)
            return
        for _ in _shown(followed, iter([content])):
            pass
        followed.end()
    elif content is not None and _is_json(response):
        followed.whole(msgspec.json.decode(content))
    else:
        followed.whole(None)


def _tee(followed: Followed, response: Any) -> None:
    """Read the events of a response while they are consumed."""
    known = weakref.ref(response)
    kind = type(response)

    def iter_bytes(chunk_size: int | None = None) -> Iterator[bytes]:  # noqa: ARG001 - httpx's name; events are not cut
        return _shown(followed, kind.iter_bytes(known()))

    def aiter_bytes(chunk_size: int | None = None) -> AsyncIterator[bytes]:  # noqa: ARG001
        return _shown_async(followed, kind.aiter_bytes(known()))

    response.iter_bytes, response.aiter_bytes = iter_bytes, aiter_bytes
    response.close = _ending(followed, known, kind.close)
    response.aclose = _ending_async(followed, known, kind.aclose)


def _ending(followed: Followed, known: Callable[[], Any], close: Callable[[Any], None]) -> Callable[[], None]:
    def closing() -> None:
        try:
            if (response := known()) is not None:
                close(response)
        finally:
            if not followed.is_read:
                followed.end()

    return closing


def _ending_async(followed: Followed, known: Callable[[], Any], close: Callable[[Any], Any]) -> Callable[[], Any]:
    async def closing() -> None:
        try:
            if (response := known()) is not None:
                await close(response)
        finally:
            if not followed.is_read:
                followed.end()

    return closing


def _shown(followed: Followed, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The bytes of a stream, event by event, without what nobody asked for."""
    blocks = _Blocks(followed)
    try:
        while True:
            broken: Exception | None = None
            followed.is_read = True
            try:
                chunk = next(chunks, None)
            except Exception as error:  # noqa: BLE001 - raised below, after what came before it
                broken = error
            finally:
                followed.is_read = False
            if broken is not None:
                yield from blocks.held()
                raise broken
            if chunk is None:
                break
            yield from blocks.take(chunk)
        yield from blocks.rest()
    finally:
        followed.end()


async def _shown_async(followed: Followed, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    blocks = _Blocks(followed)
    try:
        while True:
            broken: Exception | None = None
            followed.is_read = True
            try:
                chunk = await anext(chunks, None)
            except Exception as error:  # noqa: BLE001 - raised below, after what came before it
                broken = error
            finally:
                followed.is_read = False
            if broken is not None:
                for block in blocks.held():
                    yield block
                raise broken
            if chunk is None:
                break
            for block in blocks.take(chunk):
                yield block
        for block in blocks.rest():
            yield block
    finally:
        followed.end()


class _Blocks:
    """Server-sent events, cut out of chunks wherever these end.

    An end whose usage is still to come is held back until that is read: many stop reading there.
    """

    def __init__(self, followed: Followed) -> None:
        self._followed = followed
        self._buffer = b""
        self._held: list[bytes] = []

    def take(self, chunk: bytes) -> Iterator[bytes]:
        self._buffer += chunk
        while (end := _block_ends(self._buffer)) is not None:
            block, self._buffer = self._buffer[: end.end()], self._buffer[end.end() :]
            yield from self._read(block)

    def rest(self) -> Iterator[bytes]:
        if self._buffer:
            yield from self._read(self._buffer)
        yield from self.held()

    def held(self) -> Iterator[bytes]:
        held, self._held = self._held, []
        yield from held

    def _read(self, block: bytes) -> Iterator[bytes]:
        is_shown, is_due = self._meter(block)
        if is_shown:
            self._held.append(block)
        if not is_due:
            yield from self.held()

    def _meter(self, block: bytes) -> tuple[bool, bool]:
        """Read a block; says whether to show it, and whether usage is due after it."""
        data = b"\n".join(line[5:].strip() for line in _lines(block) if line.startswith(b"data:"))
        if not data:
            return True, bool(self._held)
        if data == _DONE:
            self._followed.end()  # clients stop reading here
            return True, False
        try:
            event = msgspec.json.decode(data)
        except msgspec.DecodeError:
            return True, bool(self._held)
        is_shown = self._followed.event(event)
        is_due = self._followed.usage_is_due
        return is_shown, is_due is not None and is_due(event)
