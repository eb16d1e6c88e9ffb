"""Where the servers' data, sockets and ports go when the obvious place will not do."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import psycopg
import pytest

from servers import QUICK_POSTGRES
from taximeter_cli.embedded import server as embedded_server
from taximeter_cli.embedded.postgres import Postgres
from taximeter_cli.embedded.process import LOOPBACK
from taximeter_cli.embedded.valkey import Valkey
from taximeter_cli.errors import EmbeddedError


def answers(server: Postgres) -> bool:
    with psycopg.connect(server.socket_url()) as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")
def test_below_a_private_home_the_data_goes_to_a_place_that_the_server_can_enter(tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    server = Postgres(home / "postgres", settings=QUICK_POSTGRES)
    try:
        server.start()
        real = (home / "postgres").resolve()
        assert (home / "postgres").is_symlink()
        assert answers(server)
        server.stop()
        again = Postgres(home / "postgres", settings=QUICK_POSTGRES)
        again.start()
        assert answers(again)
        again.stop()
    finally:
        server.stop("immediate")
        shutil.rmtree(real)
    with pytest.raises(EmbeddedError, match="gone"):
        Postgres(home / "postgres").start()


def test_a_long_path_gets_a_short_socket(server_folder: Path):
    deep = server_folder / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    server = Postgres(deep / "postgres", settings=QUICK_POSTGRES)
    try:
        server.start()
        assert answers(server)
    finally:
        server.stop("immediate")


def test_a_pid_file_whose_number_is_anybodys_is_no_obstacle(server_folder: Path):
    root = server_folder / "stale"
    server = Postgres(root, settings=QUICK_POSTGRES)
    server.start()
    pid_file = root / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    owner = pid_file.stat()
    server.stop()
    lines[0] = str(os.getpid())
    pid_file.write_text("\n".join(lines))
    pid_file.chmod(0o600)
    os.chown(pid_file, owner.st_uid, owner.st_gid)
    server.start()
    assert answers(server)
    server.stop()


@pytest.mark.parametrize("kind", [Postgres, Valkey])
def test_a_port_taken_at_the_last_moment_is_left_for_another(server_folder: Path, monkeypatch, kind: type):
    """Below a long path, where the first try's socket folder goes with it."""
    deep = server_folder / ("d" * 60) / ("f" * 60)
    deep.mkdir(parents=True, exist_ok=True)
    server = kind(deep / kind.__name__.lower(), settings=QUICK_POSTGRES if kind is Postgres else {})
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        real, probes = embedded_server.free_port, [taken.getsockname()[1]]
        monkeypatch.setattr(embedded_server, "free_port", lambda wanted: probes.pop() if probes else real(wanted))
        try:
            server.start()
            assert not probes
            assert server.port != taken.getsockname()[1]
            assert server.client().ping() if kind is Valkey else answers(server)
        finally:
            server.kill()
