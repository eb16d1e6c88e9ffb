"""Where the time goes: py-spy on the worker and the producer, pg_stat_statements, EXPLAIN (ANALYZE, BUFFERS, WAL).

One narrow load, end to end. Without py-spy (it needs the right to trace other processes) the Python part is left out.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from psycopg import Connection

from benchmarks.load import Load
from benchmarks.results import Result
from benchmarks.sides import booked, fresh, go, start_producers, wait_until_booked
from benchmarks.stack import Stack, running_stack
from taximeter_db import connect, rows
from taximeter_db.sql import statement

TOP = 25
_STATEMENTS = """
SELECT left(regexp_replace(query, '\\s+', ' ', 'g'), 100), calls, total_exec_time, rows, wal_bytes::float8
FROM pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND query NOT LIKE '%pg_stat_statements%' AND query NOT LIKE '%coalesce(sum(usage_count)%'
ORDER BY total_exec_time DESC LIMIT 12
"""


def run(form: str) -> Result:
    """One run, looked into."""
    load = Load(events={"short": 400_000, "full": 2_000_000, "smoke": 3_000}[form])
    result = Result()
    with running_stack() as stack:
        environment = fresh(stack, load.workspaces)
        name = environment["TAXIMETER_DATABASE_URL"].rsplit("/", 1)[1]
        with stack.admin(name) as admin:
            admin.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            workers = stack.workers(2, environment)
            producers = start_producers(stack, environment, load, 0)
            admin.execute("SELECT pg_stat_statements_reset()")
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
            statements = admin.execute(_STATEMENTS).fetchall()
        for role, sampler in samplers.items():
            if sampler is not None:
                result.more[role] = _read(*sampler)
        stack.end(*producers, *workers)
        result.more["plans"] = _plans(environment["TAXIMETER_DATABASE_URL"])
    result.more["statements"] = [
        {
            "statement": text,
            "calls": calls,
            "us_per_event": milliseconds * 1_000 / load.events,
            "rows": count,
            "wal_bytes_per_event": wal / load.events,
        }
        for text, calls, milliseconds, count, wal in statements
    ]
    result.sides["profiled"] = [
        {
            "events_per_second": load.events / seconds,
            "cpu_us_per_event": {role: spent / load.events * 1e6 for role, spent in used.items()},
        }
    ]
    _show(result)
    return result


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


def _plans(url: str) -> dict[str, str]:
    """How PostgreSQL books 2,000 keys and debits 500 workspaces; rolled back."""
    with connect.connection(url) as plain:
        names = [row[0] for row in plain.execute("SELECT workspace_id FROM taximeter.workspaces ORDER BY 1 LIMIT 500")]
    conn = connect.booking_connection(url)
    keys = sorted((number * 7919 % 2**32).to_bytes(16, "big") for number in range(2_000))
    given: dict[str, dict[str, Any]] = {
        "claim_keys": {
            "event_keys": rows.UuidArray(keys),
            "workspace_ids": rows.TextArray([rows.text(names[number % len(names)]) for number in range(2_000)]),
            "fingerprints": rows.UuidArray(keys),
            "count": 2_000,
        },
        "debit_workspaces": {
            "workspace_ids": rows.TextArray([rows.text(name) for name in names]),
            "costs": rows.NumericArray([6_000_000_000] * len(names)),
            "usages": rows.BigintArray([4] * len(names)),
            "duplicates": rows.BigintArray([0] * len(names)),
        },
    }
    return {name: _explain(conn, statement(name), values) for name, values in given.items()}


def _explain(conn: Connection[Any], text: str, values: dict[str, Any]) -> str:
    with conn.transaction(force_rollback=True):
        found = conn.execute("EXPLAIN (ANALYZE, BUFFERS, WAL, COSTS OFF) " + text, values).fetchall()
    return "\n".join(row[0] for row in found)


def _show(result: Result) -> None:
    for role in ("worker", "producer"):
        for title in ("own", "with callees"):
            print(f"\n  {role}, share of its interpreter's time, {title}")
            for frame, share in list(result.more.get(role, {}).get(title, {}).items())[:15]:
                print(f"    {share:6.1%}  {frame}")
    print("\n  statements, µs of PostgreSQL an event")
    for one in result.more["statements"]:
        print(
            f"    {one['us_per_event']:6.2f}  {one['wal_bytes_per_event']:6.0f} B  {one['calls']:>7,}  {one['statement']}"
        )
