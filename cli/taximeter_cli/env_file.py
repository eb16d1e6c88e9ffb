"""`--env-file FILE`: settings from a file, read as systemd's EnvironmentFile= reads it, without a shell."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from taximeter_cli.errors import UsageError

_LINE: Final = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.ASCII)


def read(file: Path) -> dict[str, str]:
    """The variables that a file sets: ``NAME=value`` a line; a value may stand in quotation marks.

    Raises:
        UsageError: It cannot be read, or a line is something else; the sentence names the line and does not show it.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not a text in UTF-8.") from error
    variables = {}
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith(("#", ";")):
            continue
        parts = _LINE.fullmatch(line)
        if parts is None or "\0" in line:
            raise UsageError(f"{file}, line {number}: write NAME=value.")
        value = parts[2].strip()
        if value[:1] in {'"', "'"}:
            if len(value) < 2 or value[-1] != value[0]:
                raise UsageError(f"{file}, line {number}: the quotation mark is not closed.")
            value = value[1:-1]
        variables[parts[1]] = value
    return variables
