"""Where the time goes: py-spy on the worker and the producer, pg_stat_statements, auto_explain with buffers and log.

One narrow load, end to end. Without py-spy (it needs the right to trace other processes) the Python part is left out.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from psycopg import Connection

from benchmarks.booking import BATCH, book, usages
from benchmarks.load import Load
from benchmarks.results import Result
from benchmarks.sides import booked, fresh, go, start_producers, wait_until_booked
from benchmarks.stack import Stack, running_stack
from taximeter_db import connect
from taximeter_db.ledger import booking

TOP = 25
_STATEMENTS = """
SELECT left(regexp_replace(query, '\\s+', ' ', 'g'), 100), calls, total_exec_time, rows, wal_bytes::float8
FROM pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND query NOT LIKE '%pg_stat_statements%' AND query NOT LIKE '%coalesce(sum(usage_count)%'
ORDER BY total_exec_time DESC LIMIT 12
"""


def run(form: str) -> Result:
    """One run, looked into; then some batches over one connection, where no statement waits for another's locks."""
    load = Load(events={"short": 400_000, "full": 2_000_000, "smoke": 3_000}[form])
    result = Result()
    with running_stack() as stack:
        environment = fresh(stack, load.workspaces)
        name = environment["TAXIMETER_DATABASE_URL"].rsplit("/", 1)[1]
        with stack.admin(name) as admin:
            admin.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            admin.execute("SELECT pg_stat_statements_reset()")
            result.sides["profiled"] = [_watched(stack, environment, load, result.more)]
            result.more["statements"] = _statements(admin, load.events)
            admin.execute("SELECT pg_stat_statements_reset()")
            alone = msgspec.structs.replace(load, events=min(load.events, 40 * BATCH))
            book(environment["TAXIMETER_DATABASE_URL"], alone)
            result.more["alone"] = _statements(admin, alone.events)
        result.more["plans"] = _plans(stack.postgres.admin_url(name), Load(events=2 * BATCH))
    _show(result)
    return result


def _watched(stack: Stack, environment: dict[str, str], load: Load, more: dict[str, Any]) -> dict[str, Any]:
    """Send the load while py-spy looks on."""
    workers = stack.workers(2, environment)
    producers = start_producers(stack, environment, load, 0)
    samplers = {
        "worker": _sample(stack, workers[0].pid, "worker"),
        "producer": _sample(stack, producers[0].pid, "producer"),
    }
    time.sleep(1)  # py-spy reads the symbols
    with connect.connection(environment["TAXIMETER_DATABASE_URL"]) as conn:
        goal = booked(conn) + load.events
        cpu, began = stack.cpu_meter(producer=producers, worker=workers), time.monotonic()
        go(producers[0])
        assert producers[0].stdout is not None
        json.loads(producers[0].stdout.readline())
        wait_until_booked(conn, goal)
        seconds, used = time.monotonic() - began, cpu.used()
    for role, sampler in samplers.items():
        if sampler is not None:
            more[role] = _read(*sampler)
    stack.end(*producers, *workers)
    return {
        "events_per_second": load.events / seconds,
        "cpu_us_per_event": {role: spent / load.events * 1e6 for role, spent in used.items()},
    }


def _statements(admin: Connection[Any], events: int) -> list[dict[str, Any]]:
    return [
        {
            "statement": text,
            "calls": calls,
            "us_per_event": milliseconds * 1_000 / events,
            "rows": count,
            "wal_bytes_per_event": wal / events,
        }
        for text, calls, milliseconds, count, wal in admin.execute(_STATEMENTS).fetchall()
    ]


def _sample(stack: Stack, pid: int, name: str) -> tuple[subprocess.Popen[bytes], Path] | None:
    program = Path(sys.executable).with_name("py-spy")
    if not program.exists() and shutil.which("py-spy") is None:
        return None
    output = stack.folder / f"{name}.folded"
    command = [str(program), "record", "--pid", str(pid), "--format", "raw", "--output", str(output), "--gil"]
    with (stack.folder / "py-spy.log").open("ab") as log:
        sampler = subprocess.Popen([*command, "--rate", "200", "--duration", "3600"], stdout=log, stderr=log)
    return sampler, output


def _read(sampler: subprocess.Popen[bytes], output: Path) -> dict[str, Any]:
    """Shares of the samples in which a thread held the interpreter, by function: in itself, and with what it calls."""
    sampler.send_signal(2)
    try:
        sampler.wait(30)
    except subprocess.TimeoutExpired:
        sampler.kill()
        sampler.wait()
    if not output.exists():
        return {}
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    total = 0
    for line in output.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        if not stack:
            continue
        frames = [_function(frame) for frame in stack.split(";")]
        total += int(count)
        own[frames[-1]] += int(count)
        for frame in set(frames):
            whole[frame] += int(count)
    return {
        "samples": total,
        "own": {frame: round(count / total, 4) for frame, count in own.most_common(TOP)},
        "with callees": {frame: round(count / total, 4) for frame, count in whole.most_common(TOP)},
    }


def _function(frame: str) -> str:
    """``name (folder/file.py:12)`` without the line, and of the path only what tells it apart."""
    name, _, place = frame.partition(" (")
    path = place.rpartition(":")[0] or place.rstrip(")")
    return f"{name} ({'/'.join(Path(path).parts[-2:])})"


def _plans(url: str, load: Load) -> list[str]:
    """How PostgreSQL books two full batches over a superuser's connection: auto_explain's plans of the second one.

    COPY has no plan.
    """
    plans: list[str] = []
    conn = connect.booking_connection(url)
    conn.add_notice_handler(lambda notice: plans.append(notice.message_primary or ""))
    conn.execute(
        "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_analyze = on;"
        "SET auto_explain.log_buffers = on; SET auto_explain.log_wal = on; SET auto_explain.log_level = notice;"
        "SET auto_explain.log_parameter_max_length = 0",
        prepare=False,
    )
    names = load.workspace_ids()
    booking.book(conn, usages(names[:BATCH]))
    plans.clear()
    booking.book(conn, usages(names[BATCH : 2 * BATCH]))
    conn.close()
    # The statement's text stands before its plan, with its comments: its first words tell which it is.
    return [re.sub(r"^.*?Query Text: ", "", plan, flags=re.DOTALL) for plan in plans]


def _show(result: Result) -> None:
    for role in ("worker", "producer"):
        for title in ("own", "with callees"):
            print(f"\n  {role}, share of its interpreter's time, {title}")
            for frame, share in list(result.more.get(role, {}).get(title, {}).items())[:15]:
                print(f"    {share:6.1%}  {frame}")
    for title, name in (("with what they waited for", "statements"), ("over one connection", "alone")):
        print(f"\n  statements, µs an event, {title}")
        for one in result.more[name][:8]:
            spent, wal = one["us_per_event"], one["wal_bytes_per_event"]
            print(f"    {spent:6.2f}  {wal:6.0f} B  {one['calls']:>7,}  {one['statement']}")
