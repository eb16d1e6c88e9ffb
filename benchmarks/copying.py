"""The limit: the very rows that Taximeter booked, by binary COPY straight into the same table, and one UPDATE that debits.

No idempotency, no running balance, no pricing, no broker, no flags. The rows are packed before the clock runs.
"""

from __future__ import annotations

import struct
import threading
import time
from collections import Counter
from typing import Any

from psycopg import Connection

from benchmarks.load import Load
from benchmarks.sides import fresh, timed
from benchmarks.stack import Stack
from taximeter_db import connect

_HEADER_BYTES = 19
_TRAILER = b"\xff\xff"
_DEBIT = """
UPDATE taximeter.workspaces AS w
SET balance = w.balance - 0.006 * v.usages, usage_cost = w.usage_cost + 0.006 * v.usages,
    usage_count = w.usage_count + v.usages, version = w.version + 1
FROM unnest(%s::text[], %s::bigint[]) AS v (workspace_id, usages) WHERE w.workspace_id = v.workspace_id
"""
Batch = tuple[bytes, list[str], list[int]]
"""Rows, workspaces sorted, usages of each."""


def rows_of(conn: Connection[Any]) -> tuple[str, list[tuple[str, bytes]]]:
    """The log as it was booked: the names of its columns, and each row's workspace and binary form."""
    columns = [
        row[0]
        for row in conn.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'taximeter.usages'::regclass AND attnum > 0 "
            "AND NOT attisdropped AND attgenerated = '' ORDER BY attnum"
        )
    ]
    listed = ", ".join(columns)
    order = "ORDER BY recorded_at, workspace_id, seq"
    workspaces = [row[0] for row in conn.execute(f"SELECT workspace_id FROM taximeter.usages {order}")]
    with conn.cursor().copy(f"COPY (SELECT {listed} FROM taximeter.usages {order}) TO STDOUT (FORMAT binary)") as copy:
        data = b"".join(copy)
    return listed, list(zip(workspaces, _split(data), strict=True))


def booked_rows(stack: Stack, load: Load) -> tuple[str, list[tuple[str, bytes]]]:
    """The rows that booking a load leaves in the log."""
    environment = fresh(stack, load.workspaces)
    started = stack.workers(2, environment)
    timed(stack, environment, load, 0, started)
    stack.end(*started)
    with connect.connection(environment["TAXIMETER_DATABASE_URL"]) as conn:
        rows = rows_of(conn)
    stack.drop(environment)
    return rows


def _split(data: bytes) -> list[bytes]:
    """Binary rows, one by one."""
    rows, position = [], _HEADER_BYTES
    read_count, read_length = struct.Struct(">h").unpack_from, struct.Struct(">i").unpack_from
    while (fields := read_count(data, position)[0]) >= 0:
        start = position
        position += 2
        for _ in range(fields):
            length = read_length(data, position)[0]
            position += 4 + max(length, 0)
        rows.append(data[start:position])
    return rows


def batches(rows: list[tuple[str, bytes]], size: int) -> list[Batch]:
    """The rows in transactions of this size."""
    header = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
    made = []
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        counts = sorted(Counter(workspace_id for workspace_id, _ in some).items())
        data = header + b"".join(row for _, row in some) + _TRAILER
        made.append((data, [name for name, _ in counts], [count for _, count in counts]))
    return made


def straight(
    stack: Stack, load: Load, rows: tuple[str, list[tuple[str, bytes]]], batch_events: float, writers: int = 1
) -> dict[str, Any]:
    """Time it, with one connection or several."""
    environment = fresh(stack, load.workspaces)
    columns, booked = rows
    ready = batches(booked, max(1, round(batch_events)))
    statement = f"COPY taximeter.usages ({columns}) FROM STDIN (FORMAT binary)"
    connections = [connect.booking_connection(environment["TAXIMETER_DATABASE_URL"]) for _ in range(writers)]
    stack.checkpoint()
    wal, cpu = stack.wal_position(), stack.cpu_meter()
    threads = [
        threading.Thread(target=_write, args=(conn, statement, ready[number::writers]))
        for number, conn in enumerate(connections)
    ]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - start
    used, wal = cpu.used(), stack.wal_position() - wal
    row = connections[0].execute("SELECT count(*) FROM taximeter.usages").fetchone()
    assert row is not None
    assert row[0] == len(booked), "a writer failed"
    for conn in connections:
        conn.close()
    stack.drop(environment)
    return {
        "events": len(booked),
        "events_per_second": len(booked) / seconds,
        "cpu_us_per_event": {"postgresql": used["postgresql"] / len(booked) * 1e6},
        "wal_bytes_per_event": wal / len(booked),
        "batch_events": batch_events,
    }


def _write(conn: Connection[Any], statement: str, ready: list[Batch]) -> None:
    for data, names, usages in ready:
        with conn.transaction():
            conn.execute(_DEBIT, [names, usages], prepare=True)
            with conn.cursor().copy(statement) as copy:
                copy.write(data)
