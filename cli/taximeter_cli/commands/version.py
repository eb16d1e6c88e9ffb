"""`taximeter version`: which build this is, and which schema it works on."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

import typer

from taximeter_cli import console
from taximeter_cli.options import Json


def facts() -> dict[str, Any]:
    """The package's version, the newest schema that it knows, and what runs it."""
    from taximeter_db import schema

    return {
        "version": importlib.metadata.version("taximeter"),
        "schema": schema.newest(),
        "python": platform.python_version(),
    }


def version(json: Json = False) -> None:
    """Show the version of this build and the database schema that it works on."""
    if json:
        console.emit(facts())
    else:
        console.say(_line())


def _line() -> str:
    known = facts()
    return f"taximeter {known['version']} (schema {known['schema']}, Python {known['python']})"


def option(wanted: bool) -> None:
    """The option --version."""
    if wanted:
        console.say(_line())
        raise typer.Exit
