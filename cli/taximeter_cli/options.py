"""Options and arguments that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer


def _data_dir(given: str) -> Path:
    if not given:
        raise typer.BadParameter("it is empty: name a directory (. is the current one)")
    if Path(given).is_file():
        raise typer.BadParameter(f"{given} is a file: name a directory")
    return Path(given)


DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="TAXIMETER_DATA_DIR",
        help="Directory of the embedded instance.",
        show_default=".taximeter",
        metavar="DIR",
        parser=_data_dir,
    ),
]
Json = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON for a machine instead of tables.")]
JsonLog = Annotated[bool, typer.Option("--json", metavar="", help="Log a JSON object a line, on stderr.")]


def workspace_id(given: str | None) -> str | None:
    """What was given, if it can name a workspace."""
    from taximeter import limits

    if given is not None and not re.fullmatch(limits.WORKSPACE_ID_PATTERN, given, re.ASCII):
        raise typer.BadParameter(
            f"{given[:140]!r} is not a workspace id. An id has 1 to {limits.WORKSPACE_ID_MAX} characters of"
            " A-Z a-z 0-9 . _ : -"
        )
    return given


WorkspaceId = Annotated[
    str, typer.Argument(metavar="ID", help="The workspace's id.", show_default=False, callback=workspace_id)
]
