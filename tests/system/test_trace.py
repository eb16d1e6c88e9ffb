"""A real trace through the whole system: published from the file, booked exactly, and published again for nothing."""

from __future__ import annotations

import csv
import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from instances import COMMAND, environment, taximeter
from taximeter_cli.embedded.process import free_port
from taximeter_cli.embedded.valkey import Valkey
from waiting import eventually
from workers import Ledger

WORKSPACES = 100
ROWS = 19_366
TRACE = Path(__file__).parents[1] / "data" / "traces" / "azure_llm_2023_conv.csv"
PER_INPUT_TOKEN = Decimal("2.50") / 1_000_000
PER_OUTPUT_TOKEN = Decimal(10) / 1_000_000
"""What gpt-4o costs in the seeded price book, in USD."""


@pytest.fixture
def addresses(database_url: str, broker_url: str, valkey: Valkey) -> dict[str, str]:
    return {
        "TAXIMETER_DATABASE_URL": database_url,
        "TAXIMETER_BROKER_URL": broker_url,
        "TAXIMETER_REDIS_URL": valkey.url(),
        "TAXIMETER_METRICS_PORT": str(free_port()),
    }


class Worker:
    """`taximeter worker` as a process."""

    def __init__(self, addresses: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [*COMMAND, "worker", "--loglevel", "INFO"], env=environment(**addresses), stdout=stream, stderr=stream
            )

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(90)


@pytest.fixture
def worker(addresses: dict[str, str], tmp_path: Path) -> Iterator[Worker]:
    done = taximeter("migrate", "--json", **addresses)  # also fills the price book
    assert done.returncode == 0, done.stderr
    made = Worker(addresses, tmp_path / "worker.log")
    # While queues are being declared, a message may come back as unroutable when a later one of the same window has already
    # arrived; both are then sent again (decision 0011). The test counts duplicates, so it begins after that.
    eventually(lambda: "broker_connected" in made.log.read_text(), 60, str(made.log))
    yield made
    made.process.kill()
    made.process.wait()


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    found = Ledger(database_url)
    yield found
    found.close()


def expected(trace: Path) -> dict[str, Decimal]:
    """Each workspace's cost, computed from the file without any code of ours."""
    costs: Counter[str] = Counter()
    with TRACE.open(newline="") as stream:
        for index, row in enumerate(csv.DictReader(stream)):
            cost = int(row["ContextTokens"]) * PER_INPUT_TOKEN + int(row["GeneratedTokens"]) * PER_OUTPUT_TOKEN
            costs[f"ws-{index % WORKSPACES:03d}"] += cost
    return dict(costs)


def balances(url: str) -> dict[str, Decimal]:
    with psycopg.connect(url) as connection:
        return dict(connection.execute("SELECT workspace_id, balance FROM taximeter.workspace_balance").fetchall())


def test_the_trace_is_booked_exactly_once(worker: Worker, addresses: dict[str, str], ledger: Ledger):
    costs = expected(TRACE)

    first = json.loads(taximeter("publish", str(TRACE), "--json", **addresses).stdout)
    assert first == {"published": ROWS, "left_out": 0, "problems": []}
    eventually(lambda: ledger.usages == ROWS, 120, worker.log)
    booked = balances(ledger.url)
    assert booked == {workspace: -cost for workspace, cost in costs.items()}
    assert sum(costs.values()) == -sum(booked.values())
    assert ledger.one("SELECT sum(cost) FROM taximeter.usage_log") == sum(costs.values())

    second = json.loads(taximeter("publish", str(TRACE), "--json", **addresses).stdout)
    assert second["published"] == ROWS
    eventually(lambda: ledger.duplicates >= ROWS, 120, worker.log)
    assert ledger.duplicates == ROWS, worker.log.read_text()
    assert balances(ledger.url) == booked
    assert ledger.usages == ROWS
    assert ledger.quarantined() == {}
    ledger.verify()
    assert worker.stop() == 0
