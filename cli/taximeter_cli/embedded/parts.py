"""What a supervisor looks after: servers, and programs of our own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from taximeter_cli.embedded.process import spawn, stop_process, tail, wait_until
from taximeter_cli.errors import EmbeddedError


class Server(Protocol):
    """What the supervisor needs of a part; ``Postgres``, ``Valkey`` and ``Program`` have it."""

    @property
    def pid(self) -> int:
        """Number of the main process."""

    @property
    def running(self) -> bool:
        """Whether it is alive."""

    @property
    def log(self) -> Path:
        """Where it writes."""

    def start(self) -> None:
        """Start it and return when it is ready; raises EmbeddedError when it does not get there."""

    def stop(self) -> None:
        """Stop it in order; returns when it is gone, at once when it was."""


def _nothing() -> None:
    return


@dataclass
class Part:
    """One entry of the supervisor's list.

    Args:
        name: One word for messages, the log file and the state file.
        server: The thing itself.
        once_ready: Called after its first start, before the next part starts (migrations, for example).
        orphan_signal: What stops it when its supervisor died.
    """

    name: str
    server: Server
    once_ready: Callable[[], None] = _nothing
    orphan_signal: signal.Signals = signal.SIGKILL


READY_SECONDS_MAX: Final = 60.0
"""How long a program may take until it does its work."""
STOP_SECONDS_MAX: Final = 60.0
"""How long a program may drain after SIGTERM before it is killed."""


class Program:
    """A program of our own as a child process, in a process group of its own.

    Args:
        name: For messages.
        argv: Called at each start: what to run.
        environment: Called at each start: variables on top of our own environment.
        log: File for its output.
        ready: Whether it does its work; asked until it says yes.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        environment: Callable[[], Mapping[str, str]],
        log: Path,
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self._name = name
        self._argv = argv
        self._environment = environment
        self._log = log
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Number of the process; raises EmbeddedError when it was not started."""
        if self._process is None:
            raise EmbeddedError(f"{self._name} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> Path:
        """The log file."""
        return self._log

    def start(self) -> None:
        """Start the program and return when it is ready."""
        self.reap()
        # SIGKILL: without its servers it could only wait; what it had in flight is delivered again
        self._process = spawn(
            self._argv,
            log=self._log,
            env={**os.environ, **self._environment()},
            cwd=self._log.parent,
            death_signal=signal.SIGKILL,
        )
        wait_until(lambda: not self.running or self._ready(), READY_SECONDS_MAX)
        if not self.running or not self._ready():
            self.stop()
            raise EmbeddedError(f"the {self._name} does not start; the end of {self._log}:\n{tail(self._log, 8)}")

    def stop(self) -> None:
        """Stop the program; it may drain first."""
        if self._process is not None:
            stop_process(self._process, signal.SIGTERM, timeout_seconds=STOP_SECONDS_MAX, last=signal.SIGKILL)
        self.reap()

    def reap(self) -> None:
        """Kill what the ended program may have left in its process group."""
        if self._process is not None and self._process.poll() is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process = None
