"""Answers that come piece by piece, as the library's own objects: read while the caller consumes them.

A stream that nobody began has sent nothing. One that fails before its first piece was refused, and consumed nothing. One
that the caller leaves, or that breaks, is recorded as far as it came.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from taximeter.integrations.following import Followed


def shown(followed: Followed, pieces: Iterator[Any]) -> Iterator[Any]:
    """The pieces of a stream, read as they pass."""
    is_begun = False
    try:
        for piece in pieces:
            is_begun = True
            if followed.event(piece):
                yield piece
    except Exception:
        if not is_begun:
            followed.call.abandon()
        raise
    finally:
        followed.end()
        close = getattr(pieces, "close", None)
        if close is not None:
            close()


async def shown_async(followed: Followed, pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The pieces of an async stream, read as they pass."""
    is_begun = False
    try:
        async for piece in pieces:
            is_begun = True
            if followed.event(piece):
                yield piece
    except Exception:
        if not is_begun:
            followed.call.abandon()
        raise
    finally:
        followed.end()
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()
