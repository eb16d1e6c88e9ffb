"""Children by number and start, and ports."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from taximeter_cli.embedded.process import (
    LOG_BYTES_MAX,
    LOOPBACK,
    free_port,
    spawn,
    start_token,
    stop_process,
    stop_stranger,
)
from taximeter_cli.errors import EmbeddedError


@pytest.fixture
def sleeper(tmp_path: Path):
    child = spawn(["sleep", "60"], log=tmp_path / "log")
    yield child
    child.kill()
    child.wait()


def test_a_token_tells_one_process_from_the_next_of_its_number(sleeper: subprocess.Popen[bytes]):
    token = start_token(sleeper.pid)
    assert token is not None
    assert token == start_token(sleeper.pid)
    assert not stop_stranger(sleeper.pid, "another start", signal.SIGTERM, timeout_seconds=1)
    assert sleeper.poll() is None
    assert stop_stranger(sleeper.pid, token, signal.SIGTERM, timeout_seconds=5)
    assert start_token(sleeper.pid) is None  # a zombie has ended
    assert sleeper.wait() == -signal.SIGTERM


def test_who_does_not_listen_is_killed(tmp_path: Path):
    child = spawn(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"], log=tmp_path / "log")
    while "ready" not in (tmp_path / "log").read_text():
        pass
    assert stop_process(child, signal.SIGTERM, timeout_seconds=0.2, last=signal.SIGKILL) == -signal.SIGKILL


def test_children_are_out_of_reach_of_the_terminals_signals(sleeper: subprocess.Popen[bytes]):
    assert os.getpgid(sleeper.pid) != os.getpgid(0)


def test_a_port_stays_unless_it_is_taken():
    with socket.socket() as listening:
        listening.bind((LOOPBACK, 0))
        listening.listen()
        taken = listening.getsockname()[1]
        assert free_port(taken) != taken
    assert free_port(taken) == taken


def test_a_free_port_is_none_that_an_outgoing_connection_is_given():
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert not [port for port in (free_port() for _ in range(200)) if first <= port <= last]


def test_a_program_that_is_missing_is_named(tmp_path: Path):
    with pytest.raises(EmbeddedError, match="/no/such/program"):
        spawn(["/no/such/program"], log=tmp_path / "log")


def test_a_log_that_has_grown_is_put_aside(tmp_path: Path):
    log = tmp_path / "log"
    with log.open("wb") as stream:
        stream.truncate(LOG_BYTES_MAX + 1)
    child = spawn(["echo", "new"], log=log)
    child.wait()
    assert log.read_text() == "new\n"
    assert (tmp_path / "log.old").stat().st_size == LOG_BYTES_MAX + 1
    assert log.stat().st_mode & 0o777 == 0o600
