"""The `taximeter` command in a fork of one process that has imported it already.

To import it takes most of a short command's time, and the tests run hundreds of them. A fork of a process that has
imported it has its own environment, working directory, streams and exit code, as a new process has.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any


class CommandServer:
    """Runs commands; it ends with the process that made it, or at `stop`."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
        self.stop = weakref.finalize(self, _stop, self._ours, self._process)

    def run(
        self, arguments: Sequence[str], *, cwd: Path | str, environment: Mapping[str, str], seconds: float
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end. Raises `TimeoutExpired` like `subprocess.run`."""
        answer, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with answer, theirs, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            with tempfile.TemporaryFile() as asked:
                request = {"arguments": list(arguments), "cwd": str(cwd), "environment": dict(environment)}
                asked.write(json.dumps(request).encode())  # surrogates of odd arguments stay escapes
                asked.seek(0)
                streams = [stream.fileno() for stream in (asked, out, err, theirs)]
                socket.send_fds(self._ours, [b"run"], streams)
            theirs.close()
            answer.settimeout(seconds)
            try:
                code = answer.recv(16)
            except TimeoutError:
                raise subprocess.TimeoutExpired(list(arguments), seconds, _text(out), _text(err)) from None
            return subprocess.CompletedProcess(["taximeter", *arguments], int(code or b"-9"), _text(out), _text(err))


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode()


def _stop(ours: socket.socket, process: subprocess.Popen[bytes]) -> None:
    ours.close()  # it reads the end and ends
    process.wait(60)


def _serve(requests: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who waits for a command is a fork of ours
    while True:
        message, streams, _, _ = socket.recv_fds(requests, 16, 4)
        if not message:
            return
        if os.fork() == 0:
            requests.close()
            _watch(*streams)
        for stream in streams:
            os.close(stream)


def _watch(asked: int, out: int, err: int, answer: int) -> None:
    """Run a command in a fork, and answer with its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(answer)
        _become(asked, out, err)
    _, status = os.waitpid(pid, 0)
    os.write(answer, str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(asked: int, out: int, err: int) -> None:
    with open(asked, encoding="utf-8") as stream:
        request: dict[str, Any] = json.load(stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["taximeter", *request["arguments"]]
    from taximeter_cli.entry import main

    sys.exit(main())  # as a process of its own ends: threads are waited for, and what was registered runs


if __name__ == "__main__":
    # Most commands import what they need as they run.
    for package in ("taximeter_cli", "taximeter_db"):
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    assert threading.active_count() == 1, "no fork of a process with threads"
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as given:
        _serve(given)
