"""Worker, page and gateway among what is broken: they wait or end with a sentence, and never show a traceback or a password."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from instances import COMMAND, environment
from servers.databases import drop_database, make_database
from taximeter_cli.embedded.postgres import ROLE, Postgres
from taximeter_cli.embedded.process import free_port
from taximeter_worker.errors import MetricsPortTakenError
from taximeter_worker.metrics import Endpoint, Metrics
from waiting import eventually

PASSWORD = "hunter2hunter2"


def _place(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


@pytest.fixture
def broken(
    postgres: Postgres, database_url: str, new_database: Callable[[], str]
) -> Iterator[dict[str, dict[str, str]]]:
    """Environments in which something is wrong, by what it is."""
    latin1 = make_database(postgres)
    drop_database(postgres, latin1)
    newer = new_database()
    with psycopg.connect(postgres.admin_url(), autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'").format(
                sql.Identifier(latin1), sql.Identifier(ROLE)
            )
        )
    with psycopg.connect(newer, autocommit=True) as conn:
        conn.execute("UPDATE taximeter.alembic_version SET version_num = '9999'")
        conn.execute(
            "CREATE OR REPLACE FUNCTION taximeter.oldest_code() RETURNS text LANGUAGE sql IMMUTABLE RETURN '9998'"
        )
    database = "TAXIMETER_DATABASE_URL"
    yield {
        "no database": {database: "postgresql://someone:pw@127.0.0.1:1/ledger"},
        "wrong password": {database: f"postgresql://someone:{PASSWORD}@{_place(database_url)}/ledger"},
        "wrong encoding": {database: postgres.url(latin1)},
        "newer schema": {database: newer},
        "not an address": {database: f"postgresql://someone:12345#{PASSWORD}@127.0.0.1:5432/ledger"},
        "ASCII": {database: "postgresql://zwölf@127.0.0.1:1/모델", "PYTHONIOENCODING": "ascii"},
        "wrong key": {"TAXIMETER_MASTER_KEY": "short", "TAXIMETER_DASHBOARD_SECRET": "short"},
    }
    drop_database(postgres, latin1)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("command", ["worker", "dashboard", "gateway"])
def test_what_is_broken_is_told_in_a_sentence(
    command: str, broken: dict[str, dict[str, str]], database_url: str, redis_url: str, tmp_path: Path
):
    address = urlsplit(redis_url)
    given = {
        "TAXIMETER_DATABASE_URL": database_url,
        "TAXIMETER_REDIS_URL": redis_url,
        "TAXIMETER_BROKER_URL": address._replace(path="/1").geturl(),
        "TAXIMETER_DASHBOARD_SECRET": "s" * 44,
        "TAXIMETER_METRICS_HOST": "127.0.0.1",
        "TAXIMETER_DRAIN_SECONDS": "2",
    }
    with ExitStack() as stack:
        started = {}
        for name, changed in broken.items():
            port = free_port()
            options = [] if command == "worker" else ["--port", str(port)]
            more = {"TAXIMETER_METRICS_PORT": str(port), "TAXIMETER_SPOOL": str(tmp_path / f"{name}.spool")}
            with (tmp_path / f"{name}.log").open("wb") as log:
                process = subprocess.Popen(
                    [*COMMAND, command, *options],
                    env=environment(**given | changed | more),
                    cwd=tmp_path,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            stack.callback(process.kill)
            started[name] = (process, port)
        ended = {}
        for name, (process, port) in started.items():
            eventually(
                lambda p=process, port=port: p.poll() is not None or _listens(port),
                seconds=120,
                what=f"{name}: it decides",
            )
            ended[name] = process.poll() is not None
            process.terminate()
        codes = {name: process.wait(120) for name, (process, _) in started.items()}
    for name, code in codes.items():
        told = (tmp_path / f"{name}.log").read_bytes().decode("ascii" if name == "ASCII" else "utf-8")
        assert "Traceback" not in told, (name, told)
        assert "this is a fault of Taximeter" not in told, (name, told)
        assert PASSWORD not in told, (name, told)
        assert "12345" not in told, (name, told)
        assert code in ({1, 2} if ended[name] else {0}), (name, code, told)
        assert told or not ended[name], (name, code)
    # Waiting would not help here.
    assert ended["not an address"]
    assert ended["wrong key"] or command == "gateway", "which needs neither key"


def test_a_host_that_is_none_is_told(database_url: str, redis_url: str, tmp_path: Path):
    given = environment(
        TAXIMETER_DATABASE_URL=database_url,
        TAXIMETER_REDIS_URL=redis_url,
        TAXIMETER_BROKER_URL=redis_url,
        TAXIMETER_DASHBOARD_SECRET="s" * 44,
        TAXIMETER_SPOOL=str(tmp_path / "spool"),
    )
    hosts = (b"\xff\xfe", b"\x1b[31m")
    with ExitStack() as stack:
        started = []
        for command in ("dashboard", "gateway"):
            for host in hosts:
                process = subprocess.Popen(
                    [*COMMAND, command, "--host", host, "--port", "0"],
                    env=given,
                    cwd=tmp_path,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
                stack.callback(process.kill)
                started.append((command, host, process))
        for command, host, process in started:
            told, _ = process.communicate(timeout=180)
            assert process.returncode == 1, (command, host, told)
            assert b"cannot be had: " in told, (command, host, told)
            assert b"fault of Taximeter" not in told, (command, host, told)
            assert b"\x1b" not in told, (command, host, told)


@pytest.mark.parametrize("host", ["\udcff\udcfe", "모델", "x" * 300, "\x1b[31m"])
def test_metrics_are_not_served_on_a_host_that_is_none(host: str):
    with pytest.raises(MetricsPortTakenError) as caught:
        Endpoint(Metrics(), host, 1).start()
    assert str(caught.value).isprintable()
