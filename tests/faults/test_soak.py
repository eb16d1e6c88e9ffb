"""The seeded mix of faults: short in `make test`, long in `make soak`.

``make soak SEED=… EVENTS=… FAULTS=… RATE=…``; what a seed repeats and what it cannot is said in ``fault_injection.soak``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fault_injection.soak import Size, seed_of, soak
from servers import rabbitmq, require


@pytest.fixture
def folder(server_folder: Path) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(dir=server_folder))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made, ignore_errors=True)


SHORT_KINDS = (
    "worker kill -9",
    "worker SIGSTOP",
    "producer kill -9",
    "connections cut",
    "connections stalled",
    "reply dropped: confirm",
    "reply dropped: COMMIT",
    "reply dropped: flags",
    "spool disk full",
    "broker kill -9",
    "PostgreSQL kill -9",
    "PostgreSQL stop -m immediate",
    "PostgreSQL disk full",
    "flag Redis kill -9",
    "flag Redis went back in time",
    "flag Redis flushed",
    "flag Redis failed over",
    "holding tool kill -9",
    "clock jumped",
    "replay killed after its commit",
    "long reader at a partition's birth",
)


@pytest.mark.timeout(900)
def test_a_short_mix_of_faults_loses_nothing_and_doubles_nothing(folder, environment):
    require("RabbitMQ", rabbitmq.installed(), "install rabbitmq-server")
    size = Size(events=4_000, faults=18, rate=250, producers=2, database_megabytes=400, kinds=SHORT_KINDS)
    soak(folder, "rabbitmq", seed_of("TAXIMETER_SEED"), size, environment)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("broker", ["rabbitmq", "valkey"])
def test_a_million_events_through_two_hundred_faults(folder, environment, broker):
    events, faults = int(os.environ.get("EVENTS") or 1_000_000), int(os.environ.get("FAULTS") or 200)
    size = Size(events=events, faults=faults, rate=float(os.environ.get("RATE") or 1_200))
    soak(folder, broker, seed_of(), size, environment)
