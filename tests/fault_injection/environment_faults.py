"""Faults of what lies around: releases, clocks, hosts, readers, and servers that come back as they were before.

As in ``fault_injection.faults``, each strikes, lasts a little, and heals; it returns False if it did not come about.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time

import psycopg
import redis

from fault_injection.probes import CORRECTED_TOKENS
from fault_injection.system_under_test import SystemUnderTest
from instances import COMMAND
from taximeter import names
from taximeter_db.connect import connection
from taximeter_db.ledger import partitions
from taximeter_worker import failpoints
from waiting import eventually

DAY_SECONDS = 86_400
JUMPS = (-DAY_SECONDS, -360, 360, DAY_SECONDS)


def worker_of_the_release_before(system: SystemUnderTest, dice: random.Random) -> bool:
    """It takes the place of a worker for a while."""
    if system.previous is None:
        return False
    worker = dice.choice(system.workers)
    worker.kill()
    worker.start(**system.previous.variables)
    eventually(lambda: worker.connected or not worker.running, 120, worker.log)
    time.sleep(dice.uniform(3, 12))
    worker.kill()
    worker.start()
    return True


def clock_jumped(system: SystemUnderTest, dice: random.Random) -> bool:
    if system.clock is None:
        return False
    system.clock.jump(dice.choice(JUMPS))
    time.sleep(dice.uniform(3, 10))
    system.clock.jump(0)
    return True


def replay_killed_after_its_commit(system: SystemUnderTest, dice: random.Random) -> bool:
    """Who replays a corrected event dies before it writes the flag, which is owed from then on."""
    workspace = system.corrected.publish()
    entry = eventually(lambda: _quarantined(system, workspace), 600, f"{workspace} is in quarantine")
    addresses = {"TAXIMETER_DATABASE_URL": system.postgres.url(), "TAXIMETER_REDIS_URL": system.flags.url("worker")}
    correction = f"data.quantities.input_tokens={CORRECTED_TOKENS}"
    command = [*COMMAND, "quarantine", "replay", str(entry), "--set", correction]
    environment = {**os.environ, **addresses, failpoints.VARIABLE: "before_flag"}

    def killed() -> bool:  # PostgreSQL may be away, and then it says so and books nothing
        return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == -signal.SIGKILL

    eventually(killed, 300, f"{workspace} is replayed")
    eventually(lambda: _disabled(system, workspace), 300, f"{workspace} is disabled")
    return True


def _quarantined(system: SystemUnderTest, workspace: str) -> int | None:
    query = "SELECT id FROM taximeter.quarantine WHERE workspace_id = %s"
    try:
        with psycopg.connect(system.postgres.url(), connect_timeout=2) as conn:
            row = conn.execute(query, [workspace]).fetchone()
    except psycopg.Error:
        return None
    return int(row[0]) if row else None


def _disabled(system: SystemUnderTest, workspace: str) -> bool:
    try:
        with system.flags.client("admin") as client:
            return client.hget(names.flag_key(workspace), "enabled") == "0"
    except redis.RedisError:
        return False


def host_vanished(system: SystemUnderTest, dice: random.Random) -> bool:
    """Every packet between a worker's host and all servers is lost, for longer or shorter than it takes to notice."""
    if system.cable is None:
        return False
    system.cable.drop_packets()
    time.sleep(dice.uniform(10, 45))
    system.cable.pass_packets()
    return True


def broker_lost_for_long(system: SystemUnderTest, dice: random.Random) -> None:
    """As if its last node were gone, and its address led to another one only then."""
    ways = [system.proxies[way] for way in ("producers to broker", "workers to broker")]
    for proxy in ways:
        proxy.refuse()
    time.sleep(dice.uniform(20, 45))
    for proxy in ways:
        proxy.refuse(False)


def long_reader(system: SystemUnderTest, dice: random.Random) -> bool:
    """A report that has read everything goes on while partitions are made, and so do the bookings."""
    url = system.postgres.url()
    try:
        with psycopg.connect(url) as reader, connection(url) as maker:
            reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            for table in ("usages", "usage_payloads", "payments", "workspaces", "quarantine"):
                reader.execute(f"SELECT 1 FROM taximeter.{table} LIMIT 1")
            days = int(partitions.ahead_seconds(maker) / DAY_SECONDS) + dice.randrange(35, 100)
            assert partitions.ensure(maker, ahead_days=days) > 0
            before = _booked(maker)
            eventually(lambda: _booked(maker) > before, 240, "bookings go on beside a reader")
    except psycopg.errors.LockNotAvailable:
        return False  # a vacuum was in the way; the workers try again later too
    return True


def _booked(conn: psycopg.Connection) -> int:
    row = conn.execute("SELECT sum(usage_count) FROM taximeter.workspaces").fetchone()
    return int(row[0]) if row else 0


def flags_killed(system: SystemUnderTest, dice: random.Random) -> None:
    """It comes back with its data, under the shipped users."""
    system.losses.append(time.time())
    system.flags.kill()
    time.sleep(dice.uniform(0, 2))
    system.restart_flags()
    system.flags_are_right()


def flags_went_back_in_time(system: SystemUnderTest, dice: random.Random) -> None:
    """It comes back with what it had seconds ago, or minutes: at the last strike of this kind."""
    system.losses.append(time.time())
    system.flags.kill()
    if not system.flags.has_kept_data:
        system.flags.go_back_in_time()
        system.restart_flags()
        time.sleep(dice.uniform(3, 8))
        system.losses.append(time.time())
        system.flags.kill()
    system.flags.go_back_in_time()
    time.sleep(dice.uniform(0, 2))
    system.restart_flags()
    system.flags_are_right()


def flags_failed_over(system: SystemUnderTest, dice: random.Random) -> None:
    """A replica takes its place, without what was written in the last moments."""
    system.fail_over_flags(dice.uniform(0, 2))
    system.losses.append(time.time())
    system.flags_are_right()


def flags_flushed(system: SystemUnderTest, dice: random.Random) -> None:
    system.losses.append(time.time())
    with system.flags.client("admin") as client:
        client.flushall()
    system.flags_are_right()
