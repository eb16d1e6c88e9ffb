"""A clock that jumps, for the processes that are started with it."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("clock.c")


class JumpingClock:
    """What a process takes for the time of day. Its monotonic clock goes on."""

    def __init__(self, folder: Path) -> None:
        self._file, library = folder / "clock", folder / "clock.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, _SOURCE, "-ldl"], check=True)
        self._file.write_bytes(bytes(8))
        self.variables = {"LD_PRELOAD": str(library), "JUMPING_CLOCK": str(self._file)}
        """The environment of a process that lives by this clock."""

    def jump(self, seconds: int) -> None:
        """Set it this far before (positive) or behind the machine's clock, at once."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("=q", seconds))


def available() -> bool:
    """Whether this machine can make one."""
    return shutil.which("cc") is not None
