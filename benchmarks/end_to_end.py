"""From record() to booked and flagged, against one Celery task per event, in turns on the same servers."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import time
import uuid
from typing import Any

import psycopg

from benchmarks.stack import ROOT, CpuMeter, Stack, running_stack, wait_for
from taximeter_db import connect
from taximeter_db.verify import verify

WORKSPACES = 1_000
WORKERS = 2


def ours(stack: Stack, name: str, count: int, payload_bytes: int = 0) -> dict[str, Any]:
    """Time `count` events through the SDK and two workers; the ledger must verify and every balance be in Redis."""
    environment = stack.fresh(name)
    workers = stack.workers(WORKERS, environment)
    url = environment["TAXIMETER_DATABASE_URL"]
    producer = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.producer", str(count), str(WORKSPACES), str(payload_bytes)],
        env={**os.environ, **environment},
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    cpu = CpuMeter(
        {
            "producer": [producer.pid],
            "broker": [stack.rabbitmq.pid],
            "worker": [worker.pid for worker in workers],
            "postgresql": [stack.postgres.pid],
            "valkey": [stack.valkey.pid],
        }
    )
    with connect.connection(url) as conn:
        query = "SELECT coalesce(sum(usage_count), 0) FROM taximeter.workspaces"
        wait_for(lambda: conn.execute(query).fetchone()[0] >= count, 600, "all events to be booked")
        done = time.monotonic()
        used = cpu.used()
        output = json.loads(producer.communicate(timeout=60)[0])
        _flags_agree(stack, conn)
        report = verify(conn)
        assert report.ok, [fault.sentence for fault in report.faults][:5]
        assert report.usages == count
    stack.end(*workers)
    seconds = done - output["start"]
    return {
        "events": count,
        "events_per_second": count / seconds,
        "recorded_per_second": count / (output["recorded"] - output["start"]),
        "confirmed_per_second": count / (output["confirmed"] - output["start"]),
        "cpu_us_per_event": {role: used_seconds / count * 1e6 for role, used_seconds in used.items()},
    }


def _flags_agree(stack: Stack, conn: psycopg.Connection[Any]) -> None:
    """Every workspace's balance in Redis is the database's."""

    def agree() -> bool:
        with stack.valkey.client() as client:
            for workspace_id, balance in conn.execute("SELECT workspace_id, balance FROM taximeter.workspaces"):
                found = client.hget(f"taximeter:balance:{{{workspace_id}}}", "balance")
                if found is None or psycopg.types.numeric.Decimal(found.decode()) != balance:  # type: ignore[attr-defined]
                    return False
        return True

    wait_for(agree, 10, "the flags")


def floor(stack: Stack, name: str, count: int) -> dict[str, Any]:
    """Time `count` events through one Celery task each, with the same number of worker processes."""
    environment = stack.fresh(name)
    os.environ.update(environment)
    from benchmarks import floor as module

    module._engine = None  # noqa: SLF001
    module.app.conf.broker_url = environment["TAXIMETER_BROKER_URL"]
    module.prepare(WORKSPACES)
    worker = stack.spawn(
        [
            "-m",
            "celery",
            "-A",
            "benchmarks.floor",
            "worker",
            "-c",
            str(WORKERS),
            "--loglevel",
            "WARNING",
            "-Q",
            "floor",
        ],
        environment,
        "floor.log",
    )
    rng = random.Random(1)
    weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(WORKSPACES)))
    now = dt.datetime.now(dt.UTC).isoformat()
    events = [
        {
            "id": str(uuid.UUID(int=rng.getrandbits(128))),
            "workspace": f"ws-{number:06d}",
            "tool": "chat",
            "model": "gpt-4o",
            "quantities": {"input_tokens": 1200, "output_tokens": 300},
            "time": now,
        }
        for number in rng.choices(range(WORKSPACES), cum_weights=weights, k=count)
    ]
    with (
        module.app.connection_for_write() as connection,
        connect.connection(environment["TAXIMETER_DATABASE_URL"]) as conn,
    ):
        booked = "SELECT count(*) FROM floor_usages"
        warm = dict(events[0], id=str(uuid.uuid4()))
        module.record_usage.apply_async((warm,), connection=connection)
        wait_for(lambda: conn.execute(booked).fetchone()[0] == 1, 60, "the floor's worker")
        start = time.monotonic()
        for event in events:
            module.record_usage.apply_async((event,), connection=connection)
        wait_for(lambda: conn.execute(booked).fetchone()[0] == count + 1, 600, "the floor")
        seconds = time.monotonic() - start
    module.engine().dispose()
    stack.end(worker)
    return {"events": count, "events_per_second": count / seconds}


def run(*, full: bool) -> dict[str, Any]:
    """Both sides in turns, three times."""
    ours_count, wide_count, floor_count = (1_000_000, 300_000, 5_000) if full else (200_000, 60_000, 1_500)
    results: dict[str, list[dict[str, Any]]] = {"floor": [], "narrow": [], "wide": []}
    with running_stack() as stack:
        for turn in range(3):
            print(f"  end to end, turn {turn + 1} of 3", flush=True)
            results["floor"].append(floor(stack, f"floor_{turn}", floor_count))
            results["narrow"].append(ours(stack, f"narrow_{turn}", ours_count))
            results["wide"].append(ours(stack, f"wide_{turn}", wide_count, 1_800))
    rates = {side: [one["events_per_second"] for one in turns] for side, turns in results.items()}
    return {
        "results": results,
        "events_per_second": {
            side: {"median": statistics.median(r), "min": min(r), "max": max(r)} for side, r in rates.items()
        },
        "narrow_over_floor": statistics.median(a / b for a, b in zip(rates["narrow"], rates["floor"], strict=True)),
        "wide_over_narrow": statistics.median(a / b for a, b in zip(rates["wide"], rates["narrow"], strict=True)),
    }
