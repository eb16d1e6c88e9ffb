"""What a comparison compares: a load sent through Taximeter, by its SDK or by foreign producers, and timed.

Booked and flagged means: every event is in the log, and every workspace's balance in Redis is the database's.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import ExitStack
from decimal import Decimal
from typing import Any

import msgspec
from psycopg import Connection

from benchmarks import booking
from benchmarks.generate import Shape, fill
from benchmarks.load import Load
from benchmarks.stack import Stack, wait_for
from taximeter import names
from taximeter_db import connect
from taximeter_db.audit.verify import Report, verify
from taximeter_db.crypto import master_keys
from taximeter_db.crypto.payload_crypto import PayloadCrypto

BOOKED = "SELECT coalesce(sum(usage_count), 0)::bigint FROM taximeter.workspaces"
FLAGS_COMPARED = 1_000
"""Workspaces whose balance in Redis is compared within the timed part; to compare all would be a load of its own."""


def ours(  # noqa: PLR0913 -- each is an axis of the benchmarks
    stack: Stack,
    load: Load,
    *,
    foreign: int = 0,
    workers: int = 2,
    onto: str | None = None,
    shards: int = 1,
    encrypted: bool = False,
) -> dict[str, Any]:
    """Send a load through Taximeter.

    Args:
        stack: The servers.
        load: What to send.
        foreign: The number of plain AMQP clients, one event a message; 0: one process with the SDK.
        workers: How many usage workers book.
        shards: Over how many queues usages are split; worker n consumes shard n.
        encrypted: Inputs and outputs are encrypted, under a master key made for this.
        onto: A database that exists and stays; None: an empty one with the load's workspaces, which is verified and dropped.
    """
    environment = stack.around(onto) if onto else fresh(stack, load.workspaces)
    environment["TAXIMETER_SHARDS"] = str(shards)
    url = environment["TAXIMETER_DATABASE_URL"]
    if encrypted:
        environment["TAXIMETER_MASTER_KEY"] = key = master_keys.new()
        _make_data_keys(url, load, key)
    started = stack.workers(workers, environment)
    result = timed(stack, environment, load, foreign, started)
    stack.end(*started)
    if onto is None:
        check(url, load.events)
        with connect.connection(url) as conn:
            result["batch_events"] = mean_batch(conn)
            result["stored_bytes_per_event"] = stored_bytes(conn) / load.events
        stack.drop(environment)
    else:
        stack.rabbitmq.drop_vhost(environment["TAXIMETER_BROKER_URL"].rsplit("/", 1)[1])
    return result


def _make_data_keys(url: str, load: Load, master_key: str) -> None:
    """Give the workspaces their data keys, as their first usage would."""
    usages = booking.usages(sorted(set(load.workspace_ids())))
    for usage in usages:
        usage.payload = b"{}"
    with connect.booking_connection(url) as conn:
        PayloadCrypto(master_keys.parse(master_key)).encode(conn, usages)


def fresh(stack: Stack, workspaces: int) -> dict[str, str]:
    """Settings that lead to a ledger without usages, whose workspaces exist, paid up: making new ones is another question."""
    template = f"bench_{workspaces}"
    if not stack.has(template):
        stack.create(template)
        fill(stack.postgres.url(template), Shape(usages=0, workspaces=workspaces, days=1))
    return stack.fresh(f"side_{time.monotonic_ns()}", template)


def timed(
    stack: Stack, environment: dict[str, str], load: Load, foreign: int, workers: list[subprocess.Popen[bytes]]
) -> dict[str, Any]:
    """Send the load to workers that are ready, and wait until it is booked and flagged."""
    producers = start_producers(stack, environment, load, foreign)
    with connect.connection(environment["TAXIMETER_DATABASE_URL"]) as conn:
        goal = booked(conn) + load.events
        stack.checkpoint()
        wal = stack.wal_position()
        cpu = stack.cpu_meter(producer=producers, worker=workers)
        reports = [go(producer) for producer in producers]
        reports = [json.loads(_line(producer)) for producer in producers]
        wait_until_booked(conn, goal)
        wait_for(lambda: flags_agree(stack, conn), 60, "the flags")
        done = time.monotonic()
        used = cpu.used()
        wal = stack.wal_position() - wal
    stack.end(*producers)
    start = min(one["start"] for one in reports)
    return {
        "events": load.events,
        "seconds": done - start,
        "events_per_second": load.events / (done - start),
        "recorded_per_second": load.events / (max(one["recorded"] for one in reports) - start),
        "confirmed_per_second": load.events / (max(one["confirmed"] for one in reports) - start),
        "cpu_us_per_event": {role: seconds / load.events * 1e6 for role, seconds in used.items()},
        "wal_bytes_per_event": wal / load.events,
    }


def start_producers(
    stack: Stack, environment: dict[str, str], load: Load, foreign: int
) -> list[subprocess.Popen[bytes]]:
    """Start them; returns when each could send its first event at once."""
    module = "benchmarks.foreign" if foreign else "benchmarks.producer"
    count = foreign or 1
    producers = []
    for part in range(count):
        share = load.share(part, count) if count > 1 else load
        argument = msgspec.json.encode(share).decode()
        producers.append(stack.spawn(["-m", module, argument], environment, "producer.log", piped=True))
    for producer in producers:
        said = _line(producer)
        if said.strip() != "ready":
            raise RuntimeError(f"a producer failed:\n{(stack.folder / 'producer.log').read_text()[-2000:]}")
    return producers


def go(producer: subprocess.Popen[bytes]) -> None:
    """Let it begin."""
    assert producer.stdin is not None
    producer.stdin.write(b"go\n")
    producer.stdin.flush()


def _line(producer: subprocess.Popen[bytes]) -> str:
    assert producer.stdout is not None
    return producer.stdout.readline().decode()


def booked(conn: Connection[Any]) -> int:
    """How many usages are in the log."""
    row = conn.execute(BOOKED).fetchone()
    return int(row[0]) if row else 0


def wait_until_booked(conn: Connection[Any], goal: int, seconds: float = 900) -> None:
    """Look again and again, for a thirtieth of the time, since looking costs the server something, too.

    Raises:
        TimeoutError: It was not booked in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if booked(conn) >= goal:
            return
        if began > deadline:
            raise TimeoutError(f"{goal - booked(conn):,} events are still not booked after {seconds:.0f} s")
        time.sleep(max(0.02, 30 * (time.monotonic() - began)))


def flags_agree(stack: Stack, conn: Connection[Any]) -> bool:
    """Whether the balances in Redis are the database's, of up to a thousand workspaces."""
    rows = conn.execute(
        "SELECT workspace_id, balance FROM taximeter.workspaces ORDER BY updated_at DESC LIMIT %s", [FLAGS_COMPARED]
    ).fetchall()
    with stack.valkey.client() as client:
        pipeline = client.pipeline(transaction=False)
        for workspace_id, _ in rows:
            pipeline.hget(names.balance_key(workspace_id), "balance")
        found = pipeline.execute()
    return all(
        value is not None and Decimal(value.decode()) == balance
        for value, (_, balance) in zip(found, rows, strict=True)
    )


def check(url: str, events: int | None = None) -> None:
    """A benchmark that books wrongly measures nothing."""
    report = verified(url)
    if not report.ok:
        raise AssertionError(f"verify found faults: {[fault.sentence for fault in report.faults][:5]}")
    if events is not None and report.usages != events:
        raise AssertionError(f"{events:,} events were sent and {report.usages:,} booked")


def verified(url: str) -> Report:
    """Verify as the command line does: a connection a core, up to four."""
    with ExitStack() as open_connections:
        first, *helpers = (
            open_connections.enter_context(connect.connection(url)) for _ in range(min(4, os.cpu_count() or 1))
        )
        return verify(first, helpers=helpers)


def mean_batch(conn: Connection[Any]) -> float:
    """Usages in a transaction, on average: of one transaction, all keys have one time."""
    row = conn.execute(
        "SELECT count(*) / greatest(count(DISTINCT booked_at), 1)::float8 FROM taximeter.usage_keys"
    ).fetchone()
    return float(row[0]) if row else 0.0


def stored_bytes(conn: Connection[Any]) -> int:
    """Size of the log on disk: usages, payloads and keys with their indexes."""
    row = conn.execute(
        "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class WHERE relnamespace = 'taximeter'::regnamespace "
        "AND relkind = 'r' AND (relname LIKE 'usages_p%' OR relname LIKE 'usage_payloads_p%' OR relname = 'usage_keys')"
    ).fetchone()
    return int(row[0]) if row else 0
