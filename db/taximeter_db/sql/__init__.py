"""Statements whose plan or text matters, in ``.sql`` files with headers: purpose, locks they take, what they return.

Most files hold one statement. Small ones on one subject may share a file: there each begins with ``-- name: NAME``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def statement(name: str) -> str:
    """Text of ``<name>.sql`` beside this module."""
    return files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")


def statements(name: str) -> Mapping[str, str]:
    """The statements of ``<name>.sql`` by their names; what stands before the first is the file's header."""
    _, *parts = _NAME.split(statement(name))
    return dict(zip(parts[::2], parts[1::2], strict=True))
