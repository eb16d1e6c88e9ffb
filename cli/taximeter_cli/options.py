"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="TAXIMETER_DATA_DIR",
        help="Directory of the embedded instance.",
        show_default=".taximeter",
        file_okay=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON for a machine instead of tables.")]
