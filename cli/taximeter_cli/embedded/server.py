"""What the embedded servers have in common: a folder, a process, a port that they keep as long as it is free."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from taximeter_cli.embedded.process import free_port, tail, wait_until
from taximeter_cli.errors import EmbeddedError

_STARTS = 3


class Server(ABC):
    """One server on one folder.

    Args:
        root: The server's folder.
        settings: Server settings that override the class's own.
        start_seconds_max: How long recovery and loading may take before a start counts as failed.
    """

    NAME: ClassVar[str]
    SETTINGS: ClassVar[Mapping[str, str]]

    def __init__(
        self, root: Path, *, settings: Mapping[str, str] | None = None, start_seconds_max: float = 120.0
    ) -> None:
        self.root = root.absolute()
        self.port = 0
        self._settings = {**self.SETTINGS, **(settings or {})}
        self._start_seconds_max = start_seconds_max
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_folder: Path | None = None
        self._password = ""

    @property
    def pid(self) -> int:
        """Number of the server's main process; raises EmbeddedError when it was not started."""
        if self._process is None:
            raise EmbeddedError(f"{self.NAME} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the main process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    @abstractmethod
    def log(self) -> Path:
        """The server's log file."""

    @abstractmethod
    def stop(self) -> None:
        """Stop the server in order; its data is on disk."""

    def kill(self) -> None:
        """End the main process as a crash would; children that it has notice and end, too."""
        if self._process is not None:
            self._process.kill()
            self.stop()

    def _start_on_a_port(self, preferred: int | None) -> None:
        """Start on the preferred port, or on another where that is taken, and wait until the server is ready."""
        for _ in range(_STARTS):
            # the port may be taken between the probe and the start: then the next try picks another
            self.port = free_port(preferred)
            self._process = self._spawn()
            wait_until(lambda: not self.running or self._ready(), self._start_seconds_max)
            if self.running and self._ready():
                return
            self.stop()
        raise EmbeddedError(f"{self.NAME} does not start; the end of {self.log}:\n{tail(self.log)}")

    @abstractmethod
    def _spawn(self) -> subprocess.Popen[bytes]:
        """Start the process on `port`."""

    @abstractmethod
    def _ready(self) -> bool:
        """Whether the server answers."""
