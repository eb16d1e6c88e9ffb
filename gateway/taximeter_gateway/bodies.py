"""Reading the body of a request: within bounds of bytes and time, and only as fast as memory allows."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import Request

from taximeter_gateway.errors import BusyError, ProblemError, TooLargeError

BODY_SECONDS: Final = 30.0
"""How long a body may take to arrive."""
_GZIP_BITS: Final = 31


class Memory:
    """How many bytes of bodies are held at a time, by all requests."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.held_bytes = 0

    @contextlib.asynccontextmanager
    async def body(self, request: Request, bytes_max: int) -> AsyncIterator[bytes]:
        """The body, without its compression; its bytes count as held until the end of the block.

        Raises:
            ProblemError: 400: its compression is broken. 408: it took too long. 413: it is too large. 415: it is compressed in
                a way that is not read here. 503: too many bytes are held already.
        """
        mine = _Held(self)
        try:
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    body = await _read(request, mine, bytes_max)
            except TimeoutError:
                raise ProblemError(
                    f"The body did not arrive within {BODY_SECONDS:g} s.",
                    status=408,
                    title="Too slow",
                    headers={"connection": "close"},
                ) from None
            yield body
        finally:
            mine.let_go()

    def take(self, size: int) -> None:
        """Count bytes.

        Raises:
            BusyError: There would be too many.
        """
        if self.held_bytes + size > self._bytes_max:
            raise BusyError("Too many requests are being read.")
        self.held_bytes += size


class _Held:
    """The bytes of one request."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._bytes = 0

    def take(self, size: int) -> None:
        self._memory.take(size)
        self._bytes += size

    def let_go(self) -> None:
        self._memory.held_bytes -= self._bytes
        self._bytes = 0


async def _read(request: Request, held: _Held, bytes_max: int) -> bytes:
    too_large = TooLargeError(f"The body has more than {bytes_max} bytes. Send smaller batches.")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > bytes_max:
        raise too_large
    unpacker = _unpacker(request.headers.get("content-encoding", "").strip().lower())
    parts: list[bytes] = []
    came = size = 0
    async for chunk in request.stream():
        came += len(chunk)
        part = unpacker.feed(chunk, bytes_max + 1 - size) if unpacker else chunk
        size += len(part)
        if size > bytes_max or came > bytes_max:
            raise too_large
        held.take(len(part))
        parts.append(part)
    if unpacker:
        unpacker.finish()
    return b"".join(parts)


def _unpacker(encoding: str) -> _Gzip | None:
    if encoding in {"", "identity"}:
        return None
    if encoding in {"gzip", "x-gzip"}:
        return _Gzip()
    raise ProblemError(
        "The body is compressed in a way that is not read here; send it as gzip or plain.",
        status=415,
        title="Not read here",
        headers={"accept-encoding": "gzip, identity"},
    )


class _Gzip:
    """Gzip piece by piece, of one or several members."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP_BITS)
        self._begun = False

    def feed(self, packed: bytes, plain_max: int) -> bytes:
        """What these bytes hold, as far as `plain_max`: who gets as much as that has too much."""
        plain = b""
        while packed and len(plain) < plain_max:
            if self._member.eof:
                self._member = zlib.decompressobj(_GZIP_BITS)
            self._begun = True
            try:
                plain += self._member.decompress(packed, plain_max - len(plain))
            except zlib.error:
                raise _broken() from None
            packed = self._member.unused_data
        return plain

    def finish(self) -> None:
        """See that nothing is missing."""
        if not self._begun or not self._member.eof:
            raise _broken()


def _broken() -> ProblemError:
    return ProblemError("The body is not gzip, or is cut off, although it claims to be gzip.")
