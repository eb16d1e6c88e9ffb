"""The ledger's statements, one to a file, each with a header: purpose, locks it takes, what it returns."""

from __future__ import annotations

from importlib.resources import files


def statement(name: str) -> str:
    """Text of ``<name>.sql`` beside this module."""
    return files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
