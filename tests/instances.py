"""`taximeter` as a process, and `taximeter up` as a process that tests can stop and kill."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from command_server import CommandServer
from taximeter_cli.embedded import state as states
from taximeter_cli.embedded.process import start_token, wait_until

COMMAND = (sys.executable, "-m", "taximeter_cli.entry")


def environment(**more: str) -> dict[str, str]:
    """Ours, without settings of Taximeter's that this shell may have."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("TAXIMETER_")}, **more}


def taximeter(
    *arguments: str, cwd: Path | str = "/", prefix: Sequence[str] = (), **more: str
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end: in a process of its own where its surroundings are not the usual ones."""
    if not prefix and all(name.startswith("TAXIMETER_") for name in more):
        return _server().run(arguments, cwd=cwd, environment=environment(**more), seconds=120)
    return subprocess.run(
        [*prefix, *COMMAND, *arguments],
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


@functools.cache
def _server() -> CommandServer:
    return CommandServer()


class Instance:
    """One data directory below ``folder``, and the `taximeter up` that runs on it."""

    def __init__(self, folder: Path, prefix: Sequence[str] = ()) -> None:
        self.folder = folder
        self.data = folder / ".taximeter"
        self.messages = folder / "messages"
        self.addresses: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self._prefix = tuple(prefix)

    def launch(self, *options: str) -> None:
        """Start it and return at once."""
        with self.messages.open("ab") as messages, (self.folder / "addresses").open("wb") as answer:
            self.process = subprocess.Popen(
                [*self._prefix, *COMMAND, "up", "--json", *options],
                cwd=self.folder,
                env=environment(),
                stdout=answer,
                stderr=messages,
                stdin=subprocess.DEVNULL,
            )

    def start(self, *options: str) -> None:
        """Start it and wait until everything is ready."""
        self.launch(*options)
        assert wait_until(lambda: self.state.ready or self.process.poll() is not None, 90), self.told
        assert self.state.ready, self.told
        assert wait_until(lambda: (self.folder / "addresses").read_text().endswith("}\n"), 30)
        self.addresses = json.loads((self.folder / "addresses").read_text())

    @property
    def told(self) -> str:
        """What it said on stderr."""
        return self.messages.read_text()

    @property
    def state(self) -> states.State:
        return states.read(self.data)

    def pids(self) -> dict[str, int]:
        return {name: child.pid for name, child in self.state.children.items()}

    def signal(self, number: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(90)

    def __call__(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the instance's folder, without further settings."""
        return taximeter(*arguments, cwd=self.folder, prefix=self._prefix, **more)

    def json(self, *arguments: str) -> Any:
        """Run a command that must succeed, with --json; returns what it prints."""
        done = self(*arguments, "--json")
        assert done.returncode == 0, done.stderr or done.stdout
        return json.loads(done.stdout)

    def end(self) -> None:
        """Stop it, whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.signal(signal.SIGTERM)
            self.process.kill()


def gone(pids: dict[str, int], seconds: float = 20.0) -> bool:
    """Whether all these processes end within the time."""
    return wait_until(lambda: all(start_token(pid) is None for pid in pids.values()), seconds)
