"""Patterns of the names that come from outside. The SDK's `taximeter.limits` says the same; a test holds them equal."""

from __future__ import annotations

import re
from typing import Final

WORKSPACE_ID_PATTERN: Final = r"[A-Za-z0-9._:\-]{1,128}"
UNIT_PATTERN: Final = r"[A-Za-z0-9_.:\-]{1,64}"
_WORKSPACE_ID: Final = re.compile(WORKSPACE_ID_PATTERN, re.ASCII)


def is_workspace_id(text: str) -> bool:
    """Whether a text is a well-formed workspace id."""
    return _WORKSPACE_ID.fullmatch(text) is not None
