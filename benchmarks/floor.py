"""The floor, timed: one Celery task per event (`benchmarks.floor_tasks`), with as many worker processes as ours."""

from __future__ import annotations

import datetime as dt
import os
import time
import uuid
from typing import Any

from benchmarks.load import Load
from benchmarks.stack import Stack, wait_for
from taximeter_db import connect

_BOOKED = "SELECT count(*) FROM floor_usages"


def floor(stack: Stack, load: Load, workers: int = 2, *, safe: bool = False) -> dict[str, Any]:
    """Send the load as tasks and wait until the last one is committed.

    They go as Celery sends them by default, to a classic queue and unconfirmed; with `safe` to a quorum queue and confirmed,
    as our events do.
    """
    environment = stack.fresh(f"floor_{time.monotonic_ns()}")
    os.environ.update(environment)
    from benchmarks import floor_tasks as tasks

    tasks.forget_connections()
    app, task = (tasks.safe_app, tasks.record_usage_safely) if safe else (tasks.app, tasks.record_usage)
    app.conf.broker_url = environment["TAXIMETER_BROKER_URL"]
    tasks.prepare(load.workspaces)
    celery = [
        "-m",
        "celery",
        "-A",
        f"benchmarks.floor_tasks:{'safe_app' if safe else 'app'}",
        "worker",
        "-c",
        str(workers),
        "--loglevel",
        "WARNING",
    ]
    worker = stack.spawn([*celery, "-Q", "floor"], environment, "floor.log")
    now = dt.datetime.now(dt.UTC).isoformat()
    quantities = {"input_tokens": 1200, "output_tokens": 300}
    events = [
        {
            "id": str(uuid.uuid4()),
            "workspace": name,
            "tool": "chat",
            "model": "gpt-4o",
            "quantities": quantities,
            "time": now,
        }
        for name in load.workspace_ids()
    ]
    with (
        app.connection_for_write() as connection,
        connect.connection(environment["TAXIMETER_DATABASE_URL"]) as conn,
    ):
        task.apply_async((dict(events[0], id=str(uuid.uuid4())),), connection=connection)
        wait_for(lambda: conn.execute(_BOOKED).fetchone()[0] == 1, 60, "the floor's worker")
        stack.checkpoint()
        wal, cpu = stack.wal_position(), stack.cpu_meter(worker=[worker])
        own = time.process_time()
        start = time.monotonic()
        for event in events:
            task.apply_async((event,), connection=connection)
        own = time.process_time() - own
        wait_for(lambda: conn.execute(_BOOKED).fetchone()[0] == load.events + 1, 600, "the floor")
        seconds = time.monotonic() - start
        used = {"producer": own, **cpu.used()}
        wal = stack.wal_position() - wal
    tasks.engine().dispose()
    stack.end(worker)
    stack.drop(environment)
    return {
        "events": load.events,
        "events_per_second": load.events / seconds,
        "cpu_us_per_event": {role: value / load.events * 1e6 for role, value in used.items()},
        "wal_bytes_per_event": wal / load.events,
    }
