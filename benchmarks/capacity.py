"""How many machines of which kind for how many events a second: arithmetic on measured costs, and a simulation for the waiting.

``python -m benchmarks.capacity [FILE] [--rate N]`` prints both; docs/scaling.md holds them for 10,000, 100,000 and 1,000,000 a
second. FILE is what ``python -m benchmarks --json`` wrote.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.load import zipf
from benchmarks.results import Result
from benchmarks.simulation import Setup, simulate
from benchmarks.stats import Spread, column
from benchmarks.tables import aligned, cpu

UTILISATION = 0.6
"""How busy a part may be on average; the rest is for peaks, for upkeep and for a neighbour that failed."""
RATES = (10_000, 100_000, 1_000_000)
EVENT_BYTES = 230
COMMIT_US = 1_500.0
"""Of a disk that makes an fsync in about a millisecond, with its round trip."""
WORKSPACES = 1_000
_APPEND = "_append (taximeter_db/usages_ledger.py)"
_LOCKED = ("UPDATE taximeter.workspaces", "COPY taximeter.usages")


class Costs(msgspec.Struct, frozen=True):
    """What an event costs, in microseconds of a core and in bytes.

    While the hot rows are locked, PostgreSQL works for `locked_us` and the worker for `append_us`; both are in their totals.
    """

    producer_us: float
    broker_us: float
    worker_us: float
    postgresql_us: float
    valkey_us: float
    locked_us: float
    append_us: float
    wal_bytes: float
    stored_bytes: float
    measured_per_second: float


def costs(results: dict[str, Any]) -> Costs:
    """From the narrow side of the end-to-end benchmark, and from the profile where there is one."""
    turns = msgspec.convert(results["scenarios"]["end-to-end"]["result"], Result).sides["narrow"]
    used = cpu(turns)
    # Without a profile: what it was in one, on another day.
    locked, append = 0.5 * used["postgresql"], 0.2 * used["worker"]
    if (profile := results["scenarios"].get("profile")) is not None:
        more = profile["result"]["more"]
        found = [one["us_per_event"] for one in more["alone"] if any(text in one["statement"] for text in _LOCKED)]
        locked = sum(found) or locked
        append = more.get("worker", {}).get("with callees", {}).get(_APPEND, append / used["worker"]) * used["worker"]
    wal = Spread.of(column(turns, "wal_bytes_per_event")).median
    return Costs(
        producer_us=used["producer"],
        broker_us=used["broker"],
        worker_us=used["worker"],
        postgresql_us=used["postgresql"],
        valkey_us=used["valkey"],
        locked_us=min(locked, used["postgresql"]),
        append_us=append,
        wal_bytes=wal,
        stored_bytes=Spread.of(column(turns, "stored_bytes_per_event")).median,
        measured_per_second=Spread.of(column(turns, "events_per_second")).median,
    )


def cores(microseconds: float, rate: float) -> float:
    """Cores that this takes, with room to spare."""
    return rate * microseconds / 1e6 / UTILISATION


def one_queue_limit(cost: Costs, batch_events: int = 5_000) -> float:
    """Events a second that one queue's hot rows let through, however many workers there are."""
    return batch_events / ((cost.locked_us + cost.append_us) * batch_events + COMMIT_US) * 1e6


def hottest_share(shards: int) -> float:
    """The largest shard's part of a Zipf load, if the second to last busiest workspaces spread evenly."""
    weights = zipf(WORKSPACES)
    first = weights[0] / weights[-1]
    return first + (1 - first) / shards


def cost_lines(cost: Costs) -> Iterable[list[str]]:
    """What an event costs."""
    yield ["part", "µs of a core an event", "events/s of one core"]
    for part in ("producer", "broker", "worker", "postgresql", "valkey"):
        spent = getattr(cost, f"{part}_us")
        yield [part, f"{spent:.2f}", f"{1e6 / max(spent, 0.01):,.0f}"]
    yield ["of these with the hot rows locked: PostgreSQL", f"{cost.locked_us:.2f}", ""]
    yield ["and the worker", f"{cost.append_us:.2f}", ""]
    limit = one_queue_limit(cost)
    yield ["so the hot rows, with a commit for every 5,000", f"{1e6 / limit:.2f}", f"{limit:,.0f}"]


def model_lines(cost: Costs, rates: Sequence[int] = RATES) -> Iterable[list[str]]:
    """Rows of needs, a column for each rate."""
    yield ["", *(f"{rate:,}/s" for rate in rates)]
    for title, spent in (
        ("cores in producers", cost.producer_us),
        ("cores in RabbitMQ, each node of a quorum", cost.broker_us),
        ("cores in workers, about one process each", cost.worker_us),
        ("cores in PostgreSQL", cost.postgresql_us),
        ("cores in Valkey (it has one)", cost.valkey_us),
    ):
        yield [title, *(f"{cores(spent, rate):,.1f}" for rate in rates)]
    yield ["RabbitMQ, MB/s to disk on each node", *(f"{rate * EVENT_BYTES / 1e6:,.0f}" for rate in rates)]
    yield ["PostgreSQL, write-ahead log, MB/s", *(f"{rate * cost.wal_bytes / 1e6:,.0f}" for rate in rates)]
    yield ["stored, TB a month", *(f"{rate * cost.stored_bytes * 86_400 * 30 / 1e12:,.1f}" for rate in rates)]
    limit = one_queue_limit(cost) * UTILISATION
    yield ["shards, so that hot rows do not limit", *(f"{max(1, -(-rate // limit)):,.0f}" for rate in rates)]


def _setup(cost: Costs, rate: float, **changes: Any) -> Setup:
    given = {
        "events_per_second": rate,
        "decode_us": 0.9 * (cost.worker_us - cost.append_us),
        "append_us": cost.append_us,
        "flag_us": 0.1 * (cost.worker_us - cost.append_us),
        "claim_us": max(0.1, cost.postgresql_us - cost.locked_us),
        "locked_us": cost.locked_us,
        "commit_us": COMMIT_US,
    }
    return Setup(**(given | changes))


def simulation_lines(cost: Costs) -> Iterable[list[str]]:
    """Some setups, each under more than it can take, and under what it should be given."""
    yield ["setup", "most, events/s", "hot rows busy", "database busy", "p99 at 60 % of it, ms"]
    shared = {"machine_cores": 2, "database_cores": 2, "other_us": cost.producer_us + cost.broker_us + cost.valkey_us}
    cases: list[tuple[str, dict[str, Any]]] = [
        (f"the benchmark's machine (measured: {cost.measured_per_second:,.0f}/s)", {"workers": 2, **shared}),
        ("2 workers, one queue, 16 cores in PostgreSQL", {"workers": 2}),
        ("4 workers", {"workers": 4}),
        ("8 workers", {"workers": 8}),
        ("16 workers", {"workers": 16}),
        ("16 workers, 4 shards", {"workers": 16, "shards": 4, "hottest_shard_share": hottest_share(4)}),
        ("16 workers, 16 shards", {"workers": 16, "shards": 16, "hottest_shard_share": hottest_share(16)}),
        ("32 workers, 32 shards, 32 cores", {"workers": 32, "shards": 32, "database_cores": 32}),
        ("one hot workspace, 16 workers, any shards", {"workers": 16}),
    ]
    for title, changes in cases:
        flood = 1.3 * _upper_bound(cost, changes)
        most = simulate(_setup(cost, flood, **changes))
        calm = simulate(_setup(cost, UTILISATION * most.events_per_second, **changes))
        yield [
            title,
            f"{most.events_per_second:,.0f}",
            f"{most.hot_rows_busy:.0%}",
            f"{most.database_busy:.0%}",
            f"{calm.p99_ms:,.0f}",
        ]


def _upper_bound(cost: Costs, changes: dict[str, Any]) -> float:
    """What the setup could at the very most take, by its workers and by its cores."""
    workers = changes["workers"] / cost.worker_us
    total = cost.worker_us + cost.postgresql_us + changes.get("other_us", 0.0)
    machine = changes["machine_cores"] / total if "machine_cores" in changes else 10.0
    return 1e6 * min(workers, machine, changes.get("database_cores", 16) / cost.postgresql_us)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--rate", type=int, action="append", help="events a second (10,000, 100,000 and 1,000,000)")
    given = parser.parse_args()
    cost = costs(msgspec.json.decode(given.file.read_bytes()))
    for lines in (cost_lines(cost), model_lines(cost, given.rate or RATES), simulation_lines(cost)):
        print(aligned(lines) + "\n")


if __name__ == "__main__":
    main()
