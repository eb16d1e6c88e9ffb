"""The release before this one, taken out of the project's history, to run beside this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

COMMIT = "529e389"
"""Taximeter 0.1.0."""
_ROOT = Path(__file__).parents[2]
_PACKAGES = ("worker", "db", "producers", "cli")


class PreviousRelease:
    """Its code in a folder. Who runs with ``variables`` runs it instead of this release's."""

    def __init__(self, folder: Path) -> None:
        self.variables = {"PYTHONPATH": os.pathsep.join(str(folder / package) for package in _PACKAGES)}

    def command(self, *arguments: str, environment: Mapping[str, str]) -> None:
        """Run a command of its command line."""
        subprocess.run(
            [sys.executable, "-m", "taximeter_cli.entry", *arguments],
            env={**environment, **self.variables},
            check=True,
            capture_output=True,
            timeout=120,
        )


def unpack(folder: Path) -> PreviousRelease | None:
    """Take it out of the history; None in a copy of the project that has no history."""
    folder.mkdir()
    if not shutil.which("git"):
        return None
    archive = subprocess.run(["git", "-C", str(_ROOT), "archive", COMMIT, *_PACKAGES], capture_output=True, check=False)
    if archive.returncode:
        return None
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return PreviousRelease(folder)
