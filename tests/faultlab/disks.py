"""Small file systems that a test can fill to the last byte."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from servers import require


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
        """Leave no room at all."""
        with self._ballast.open("ab") as ballast:
            while (free := shutil.disk_usage(self.folder).free) > 0:
                try:
                    os.posix_fallocate(ballast.fileno(), ballast.tell(), free)
                    ballast.seek(0, os.SEEK_END)
                except OSError:  # others write as well: take what is left page by page
                    try:
                        ballast.write(bytes(4096))
                        ballast.flush()
                    except OSError:
                        return

    def relieve(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount; what is still open goes when it is closed."""
        subprocess.run(["umount", "--lazy", self.folder], check=False)
