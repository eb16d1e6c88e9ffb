"""Small file systems that a test can fill to the last byte."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from servers import require

FILLING_SECONDS = 1.0
_PAGE_BYTES = 4096


class SmallDisk:
    """A tmpfs of its own. Only root can mount one."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        require("A small file system", os.geteuid() == 0 and shutil.which("mount"), "only root can mount one")
        folder.mkdir(parents=True)
        self.folder = folder
        options = f"size={megabytes}m,mode=0711"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=False)
        require("A small file system", done.returncode == 0, "this machine lets nobody mount one")

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    def fill(self) -> None:
        """Leave next to no room. Others write and delete meanwhile, so what they give up is taken only for a moment."""
        until = time.monotonic() + FILLING_SECONDS
        descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            while (room := shutil.disk_usage(self.folder).free) >= _PAGE_BYTES and time.monotonic() < until:
                while room >= _PAGE_BYTES:
                    try:
                        os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, room)
                        break
                    except OSError:  # somebody was faster
                        room //= 2
        finally:
            os.close(descriptor)

    def relieve(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount; what is still open goes when it is closed."""
        subprocess.run(["umount", "--lazy", self.folder], check=False)
