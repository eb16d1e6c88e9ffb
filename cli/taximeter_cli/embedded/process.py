"""Child processes that do not outlive their supervisor: start, identify, stop; and free loopback ports."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from taximeter_cli.errors import EmbeddedError

LOOPBACK = "127.0.0.1"
SOCKET_PATH_BYTES_MAX = 107
"""Longest path of a Unix socket on Linux (macOS: 103); beyond it bind() fails."""

LOG_BYTES_MAX = 16 * 1024 * 1024
"""A log that is larger when its program starts is put aside as ``<name>.old``."""

_POLL_SECONDS = 0.01
_PR_SET_PDEATHSIG = 1
_PORTS_FROM = 15_000
_PORT_TRIES = 20
_EPHEMERAL_FROM = 32_768  # where the kernel does not tell: Linux's default; others begin higher


class Account(NamedTuple):
    """An unprivileged system user that a server runs as when we are root."""

    name: str
    uid: int
    gid: int

    @classmethod
    def of_uid(cls, uid: int) -> Account:
        """Look the user up by number; raises KeyError when it has no name."""
        entry = pwd.getpwuid(uid)
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)


def spawn(
    argv: Sequence[str | Path],
    *,
    log: Path,
    account: Account | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | str = "/",
    death_signal: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own, so that Ctrl-C in the terminal reaches only the supervisor.

    On Linux the kernel sends ``death_signal`` to the child when the thread that called this ends, however it
    ends: call it from the main thread. Elsewhere the next start finds what a killed supervisor left behind.

    Args:
        argv: Program and arguments.
        log: File that stdout and stderr are appended to; made with mode 0600.
        account: User to run as; only root can ask for one.
        env: The child's whole environment; ours when None.
        cwd: Working directory; the child's user must be able to enter it.
        death_signal: What the kernel sends when we die.

    Raises:
        EmbeddedError: The program cannot be run at all.
    """
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_name(log.name + ".old"))
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            [str(part) for part in argv],
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            cwd=cwd,
            env=None if env is None else dict(env),
            start_new_session=True,
            preexec_fn=_die_with_parent(death_signal),  # noqa: PLW1509 - it makes system calls only, takes no locks
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    except OSError as error:
        raise EmbeddedError(f"cannot run {argv[0]}: {error.strerror or error}") from error
    finally:
        os.close(descriptor)


def run(argv: Sequence[str | Path], *, account: Account | None = None) -> subprocess.CompletedProcess[str]:
    """Run a short program to its end as ``account``; output captured, exit code not checked."""
    return subprocess.run(
        [str(part) for part in argv],
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
        stdin=subprocess.DEVNULL,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )


def _die_with_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def hook() -> None:
        # after the change of user: changing it would clear the setting
        prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the call
            os._exit(1)

    return hook


def start_token(pid: int) -> str | None:
    """What tells this process from a later one with the same number, or None when no such process runs."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except (ProcessLookupError, PermissionError):
        return None
    else:
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]  # state; start in clock ticks since boot
    listed = run(["ps", "-o", "lstart=", "-p", str(pid)])
    return listed.stdout.strip() or None


def program_of(pid: int) -> str:
    """Name of the program that runs under this number, or an empty string."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    if Path("/proc/self/comm").exists():
        return ""
    return Path(run(["ps", "-o", "comm=", "-p", str(pid)]).stdout.strip()).name


def stop_process(
    process: subprocess.Popen[bytes], first: signal.Signals, *, timeout_seconds: float, last: signal.Signals
) -> int:
    """Send ``first``, wait, then ``last``; return the exit code. Returns at once when it has already ended."""
    if process.poll() is None:
        process.send_signal(first)
        try:
            return process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(last)
    return process.wait(timeout_seconds)


def stop_stranger(pid: int, token: str, first: signal.Signals, *, timeout_seconds: float) -> bool:
    """Stop a process that a dead supervisor left behind; False when it had already gone.

    Args:
        pid: Its number.
        token: Its :func:`start_token` when it was started; another process of that number is left alone.
        first: The signal for an orderly stop; SIGKILL follows after ``timeout_seconds``.
        timeout_seconds: How long the orderly stop may take.
    """
    if start_token(pid) != token:
        return False
    for number in (first, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if wait_until(lambda: start_token(pid) != token, timeout_seconds):
            break
    return True


def wait_until(condition: Callable[[], bool], timeout_seconds: float) -> bool:
    """Poll until ``condition()`` is true; False when it was not within the time."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def free_port(preferred: int | None = None) -> int:
    """Return ``preferred`` if nothing listens there on loopback, else a port that no outgoing connection takes.

    A server binds its port a while after this. The kernel gives connections their own ports from one range; a port
    outside of it is taken only by another server that picks the same one.
    """
    tries = random.sample(range(_PORTS_FROM, _first_ephemeral_port()), _PORT_TRIES)
    for wanted in (preferred, *tries, 0):
        if wanted is None:
            continue
        with socket.socket() as probe:
            # as servers do: a port in TIME_WAIT is free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((LOOPBACK, wanted))
                port: int = probe.getsockname()[1]
                return port
    raise EmbeddedError("no free TCP port on 127.0.0.1")


def _first_ephemeral_port() -> int:
    first = _EPHEMERAL_FROM
    with contextlib.suppress(OSError, ValueError, IndexError):
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    return max(first, _PORTS_FROM + _PORT_TRIES)


def tail(log: Path, lines: int = 5) -> str:
    """Return the last lines of a log file, for an error message."""
    with contextlib.suppress(OSError):
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    return ""
