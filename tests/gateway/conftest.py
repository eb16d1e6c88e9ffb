"""A gateway as a process on real servers, and what its broker has got."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psycopg
import pytest
import redis

from cloud_events import payment_event, usage_event
from taximeter import names
from taximeter_cli.embedded.process import free_port, wait_until
from taximeter_cli.embedded.valkey import BROKER_DATABASE, FLAG_DATABASE, Valkey
from taximeter_db import connect, producer_keys
from taximeter_db.producer_keys import Scope


class Gateway:
    """One gateway, which a test may stop, kill and start again on the same port and spool."""

    def __init__(self, environment: dict[str, str], port: int) -> None:
        self.environment = environment
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{port}"
        self.log = Path(environment["TAXIMETER_SPOOL"]).with_suffix(".log")

    def start(self) -> Gateway:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "taximeter_cli.commands.gateway"],
                env=self.environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        assert wait_until(lambda: self.process.poll() is not None or self.answers(), 60), self.log.read_text()
        assert self.process.poll() is None, self.log.read_text()
        return self

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)

    def client(self, key: str, **settings: Any) -> httpx.Client:
        headers = {"authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=40, trust_env=False, **settings)


@pytest.fixture
def gateway_environment(
    database_url: str, role_url: Callable[[str], str], valkey: Valkey, tmp_path: Path, environment: dict[str, str]
) -> dict[str, str]:
    return {
        **environment,
        "TAXIMETER_DATABASE_URL": role_url("gateway"),
        "TAXIMETER_BROKER_URL": valkey.url(BROKER_DATABASE, user="gateway"),
        "TAXIMETER_REDIS_URL": valkey.url(FLAG_DATABASE, user="gateway"),
        "TAXIMETER_SPOOL": str(tmp_path / "spool"),
    }


@pytest.fixture
def start_gateway(gateway_environment: dict[str, str]) -> Iterator[Callable[..., Gateway]]:
    """Factory ``start_gateway(**variables)`` of gateways that run."""
    made: list[Gateway] = []

    def start(**variables: str) -> Gateway:
        port = free_port(None)
        one = Gateway({**gateway_environment, "TAXIMETER_GATEWAY_PORT": str(port), **variables}, port)
        made.append(one)
        return one.start()

    yield start
    for one in made:
        if one.process is not None and one.process.poll() is None:
            one.kill()


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with connect.connection(database_url) as connection:
        yield connection


@pytest.fixture
def new_key(conn: psycopg.Connection[Any]) -> Callable[..., str]:
    """``new_key(**scope)``: a new producer key."""

    def make(name: str = "", **scope: Any) -> str:
        return producer_keys.create(conn, name or f"key-{time.monotonic_ns()}", Scope(**scope), "test")

    return make


@pytest.fixture
def messages(valkey: Valkey) -> Callable[..., list[bytes]]:
    """Take the messages that have arrived on the broker."""

    def take(queue: str = names.USAGE_QUEUE) -> list[bytes]:
        with redis.Redis.from_url(valkey.url(BROKER_DATABASE)) as client:
            return list(iter(lambda: client.rpop(queue), None))

    return take


@pytest.fixture
def arrived(messages: Callable[..., list[bytes]]) -> Callable[..., list[dict[str, Any]]]:
    """Take the events that have arrived on the broker."""
    return lambda queue=names.USAGE_QUEUE: [event for body in messages(queue) for event in json.loads(body)]


@pytest.fixture
def event() -> Callable[..., dict[str, Any]]:
    """``event(id, **changes)``: a usage event; changes of ``data`` are merged into it."""

    def make(event_id: str = "e-1", workspace: str = "acme", **data: Any) -> dict[str, Any]:
        return usage_event(workspace, event_id, **data)

    return make


@pytest.fixture
def payment() -> Callable[..., dict[str, Any]]:
    def make(event_id: str = "p-1", workspace: str = "acme") -> dict[str, Any]:
        return payment_event(workspace, event_id=event_id)

    return make
