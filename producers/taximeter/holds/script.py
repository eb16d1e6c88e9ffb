"""The script of holds, and the name that Redis gives it."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Final

SOURCE: Final = resources.files(__package__).joinpath("holds.lua").read_text(encoding="utf-8")
# SHA-1 is the name that Redis gives a script; it protects nothing.
SHA: Final = hashlib.sha1(SOURCE.encode(), usedforsecurity=False).hexdigest()
