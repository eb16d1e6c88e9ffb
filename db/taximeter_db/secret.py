"""Secrets in settings: texts that work like any other and never show themselves."""

from __future__ import annotations

import re
from typing import Final, Self
from urllib.parse import unquote

MASK: Final = "***"
_PIECE_CHARACTERS_MIN: Final = 5
_NEXT_ADDRESS: Final = re.compile(r";(?=[a-z+]+://)")
"""Between the addresses of several servers."""
_known: set[str] = set()


class Secret(str):
    """A text whose `repr`, `str` and formatting are a mask. What takes the text itself apart or sends it sees it whole.

    Every secret of a process is remembered for `redact`.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Make one of a text, or of another secret."""
        plain = str.__str__(text)
        _known.update(_pieces(plain))
        return super().__new__(cls, plain)

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def reveal(self) -> str:
        """The text itself, as an ordinary string."""
        return str.__str__(self)


def _pieces(text: str) -> set[str]:
    """What must not be seen of a text: of an address the password, also as a parser that stumbles over it cuts it."""
    if "://" not in text:
        pieces = {text, *re.split("[,:]", text)}
    else:
        pieces = set().union(*map(_passwords, _NEXT_ADDRESS.split(text)))
    return {piece for piece in pieces if len(piece) >= _PIECE_CHARACTERS_MIN}


def _passwords(address: str) -> set[str]:
    """The password of one address, whole and in pieces; hosts and users are not secret."""
    password = address.partition("://")[2].rpartition("@")[0].partition(":")[2]
    in_query = set(re.findall(r"[?&](?:ssl)?password=([^&]+)", address))
    return {password, unquote(password), *re.split("[/?#@:]", password), *in_query, *map(unquote, in_query)}


def redact(text: str) -> str:
    """A text for a person or a log, with every secret of this process masked."""
    for piece in sorted(_known, key=len, reverse=True):
        text = text.replace(piece, MASK)
    return text
