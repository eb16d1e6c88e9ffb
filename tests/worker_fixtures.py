"""Fixtures of the worker's and the system's tests: a migrated database with one price, and workers as processes or parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from taximeter_cli.embedded.logins import METRICS, WORKER, part_url
from taximeter_cli.embedded.process import free_port
from taximeter_cli.embedded.valkey import BROKER_DATABASE, Valkey
from taximeter_worker.runtime import Runtime
from taximeter_worker.settings import Settings
from workers import Feed, Ledger, WorkerProcess, set_prices


@pytest.fixture
def priced_url(database_url: str) -> str:
    """A database whose price book knows model m."""
    set_prices(database_url)
    return database_url


@pytest.fixture
def ledger(priced_url: str) -> Iterator[Ledger]:
    """What the database says."""
    found = Ledger(priced_url)
    yield found
    found.close()


@pytest.fixture
def feed(broker_url: str) -> Iterator[Feed]:
    """A raw producer on each kind of broker."""
    made = Feed(broker_url)
    yield made
    made.close()


@pytest.fixture
def new_worker(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[..., WorkerProcess]]:
    """Factory of workers: ``new_worker(database_url, broker_url, redis_url, TAXIMETER_…="…")``.

    Given the owner's address of a test server, a worker connects with a worker's rights alone.
    """
    made: list[WorkerProcess] = []

    def make(database_url: str, broker_url: str, redis_url: str, **more: str) -> WorkerProcess:
        settings = {
            "TAXIMETER_DATABASE_URL": part_url(database_url, WORKER),
            "TAXIMETER_METRICS_DATABASE_URL": part_url(database_url, METRICS),
            "TAXIMETER_BROKER_URL": broker_url,
            "TAXIMETER_REDIS_URL": redis_url,
            "TAXIMETER_METRICS_PORT": str(free_port()),
        }
        made.append(WorkerProcess({**environment, **settings, **more}, tmp_path / f"worker-{len(made)}.log"))
        return made[-1]

    yield make
    for worker in made:
        worker.kill()


@pytest.fixture
def worker(new_worker: Callable[..., WorkerProcess], priced_url: str, broker_url: str, redis_url: str) -> WorkerProcess:
    """A running worker on each kind of broker."""
    return new_worker(priced_url, broker_url, redis_url).start()


@pytest.fixture
def new_runtime(priced_url: str, redis_url: str) -> Iterator[Callable[..., Runtime]]:
    """Factory of the worker's parts within this process, without Celery; stopped at the end."""
    made: list[Runtime] = []

    def make(broker_url: str, **changes: Any) -> Runtime:
        values = {
            "database_url": priced_url,
            "redis_url": redis_url,
            "metrics_port": 0,
            "drain_seconds": 5.0,
            **changes,
        }
        owner_url = values["database_url"]
        values |= {"database_url": part_url(owner_url, WORKER), "metrics_database_url": part_url(owner_url, METRICS)}
        made.append(Runtime(Settings(broker_url=broker_url, **values), lambda: None))
        made[-1].start()
        return made[-1]

    yield make
    for runtime in made:
        runtime.stop()


@pytest.fixture
def runtime(new_runtime: Callable[..., Runtime], broker_url: str) -> Runtime:
    """One on each kind of broker."""
    return new_runtime(broker_url)


@pytest.fixture
def valkey_broker_url(valkey: Valkey) -> str:
    """An empty broker, for tests in which its kind does not matter."""
    return valkey.url(BROKER_DATABASE)
