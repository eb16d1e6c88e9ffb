"""Which unit a misspelt one was probably meant to be."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

_OTHER_WORDS: Final = {
    "prompt": "input",
    "completion": "output",
    "generated": "output",
    "in": "input",
    "out": "output",
    "token": "tokens",
    "image": "images",
    "request": "requests",
    "second": "seconds",
    "character": "characters",
    "chars": "characters",
    "page": "pages",
    "search": "searches",
    "thinking": "reasoning",
}
"""What providers call a part of a unit's name, by what it is called here."""
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+[a-z]*")
_ALIKE: Final = 0.8


def near_unit(unit: str, priced: Iterable[str]) -> str | None:
    """The priced unit that ``unit`` was probably meant to be; None where nothing is near enough."""
    by_words = {_words(name): name for name in sorted(priced) if name != unit}
    words = _words(unit)
    if words in by_words:
        return by_words[words]
    near = difflib.get_close_matches(words, by_words, n=1, cutoff=_ALIKE)
    return by_words[near[0]] if near else None


def _words(name: str) -> str:
    parts = (part.lower() for part in _WORD.findall(name))
    return "_".join(_OTHER_WORDS.get(part, part) for part in parts)
