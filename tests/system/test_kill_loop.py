"""Workers killed in a loop under load: everything accepted ends exactly once as a usage, a duplicate or a quarantine entry.

Two workers share the queue. Again and again one of them dies by SIGKILL: at a random moment, or at one of the places where
it hurts most (before and after commit, flag and acknowledgement). Meanwhile events go in, one in ten of them a second time,
and a few that cannot be booked. At the end the database, the test's own sums and Redis must agree to the last picodollar.

``TAXIMETER_SEED=<printed seed>`` repeats what is sent and how it is killed; the timing of the processes is the machine's own.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable

import psycopg
import pytest
import redis

from taximeter import names
from taximeter_worker import failpoints
from waiting import eventually
from workers import PER_TOKEN_PICO, Feed, Ledger, WorkerProcess, payment, usage

WORKSPACES = 200
EVENTS_PER_MESSAGE = 50
PICO_PER_CENT = 10**10


class Load:
    """Publishes events from a thread, spread over the time that the kills take, and keeps its own books."""

    def __init__(self, feed: Feed, events: int, dice: random.Random) -> None:
        self.sent = self.repeated = self.bad = 0
        self.balances: Counter[str] = Counter()
        self.kills_are_over = threading.Event()
        self._feed = feed
        self._events = events
        self._dice = dice
        self._old: list[dict] = []
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    @property
    def unique(self) -> int:
        return self.sent - self.repeated - self.bad

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()
        if self._failed is not None:
            raise self._failed

    def _run(self) -> None:
        try:
            while self.sent < self._events or not self.kills_are_over.is_set():
                self._feed.send(*(self._event() for _ in range(EVENTS_PER_MESSAGE)))
                if self._dice.random() < 0.05:
                    self._pay()
                time.sleep(0.0 if self.kills_are_over.is_set() else 0.04)
        except BaseException as error:
            self._failed = error

    def _event(self) -> dict:
        dice = self._dice
        self.sent += 1
        roll = dice.random()
        if self._old and roll < 0.1:
            self.repeated += 1
            return dice.choice(self._old)
        # A few workspaces have most of the traffic.
        workspace = f"w{int(dice.paretovariate(0.6)) % WORKSPACES}"
        tokens = dice.randrange(1, 5000)
        event = usage(workspace, tokens, metadata={"n": self.sent})
        if roll > 0.99:
            self.bad += 1
            event["data"]["quantities"] = {"input_tokens": -tokens}
            return event
        self.balances[workspace] -= tokens * PER_TOKEN_PICO
        if len(self._old) < 5000:
            self._old.append(event)
        else:
            self._old[dice.randrange(5000)] = event
        return event

    def _pay(self) -> None:
        workspace, cents = f"w{self._dice.randrange(WORKSPACES)}", self._dice.randrange(1, 500)
        event = payment(workspace, f"{cents // 100}.{cents % 100:02d}")
        self._feed.pay(event, *[event] * self._dice.randrange(2))
        self.balances[workspace] += cents * PICO_PER_CENT


def kill_in_a_loop(workers: list[WorkerProcess], kills: int, dice: random.Random) -> Counter[str]:
    """Kill workers, starting each again at once; returns how they died."""
    deaths: Counter[str] = Counter()
    for worker in workers:
        worker.start()
    while deaths.total() < kills:
        worker = dice.choice(workers)
        point = dice.choice(failpoints.BOOKING_POINTS)
        if dice.random() < 0.3:
            _connect(worker)
            time.sleep(dice.uniform(0.0, 0.5))
            worker.kill()
            deaths["at some moment"] += 1
        worker.kill()
        worker.start(TAXIMETER_FAILPOINT=f"{point}:{dice.randrange(1, 8)}")
        _connect(worker)
        if _died(worker):
            deaths[point] += 1
        else:
            worker.kill()
            deaths["at some moment"] += 1
        worker.start()
    return deaths


def _connect(worker: WorkerProcess) -> None:
    eventually(lambda: worker.connected or not worker.running, 120)


def _died(worker: WorkerProcess) -> bool:
    try:
        return worker.wait(5) == -signal.SIGKILL
    except subprocess.TimeoutExpired:
        return False


@pytest.fixture
def run(
    feed: Feed,
    ledger: Ledger,
    broker_url: str,
    redis_url: str,
    new_worker: Callable[..., WorkerProcess],
) -> Callable[[int, int], None]:
    """``run(kills, events)`` on each kind of broker."""
    # Small batches: more commits, flags and acknowledgements to die between.
    small = {"TAXIMETER_BATCH_EVENTS_MAX": "300"}
    workers = [new_worker(ledger.url, broker_url, redis_url, **small) for _ in range(2)]
    return lambda kills, events: _run(kills, events, workers, feed, ledger, redis_url)


def _run(kills: int, events: int, workers: list[WorkerProcess], feed: Feed, ledger: Ledger, redis_url: str) -> None:
    seed = int(os.environ.get("TAXIMETER_SEED") or random.randrange(10**9))
    print(f"\nTAXIMETER_SEED={seed}")
    load = Load(feed, events, random.Random(seed + 1))
    load.start()
    try:
        deaths = kill_in_a_loop(workers, kills, random.Random(seed))
    finally:
        load.kills_are_over.set()
        load.join()
    for worker in workers:
        _connect(worker)
    eventually(lambda: ledger.usages + sum(ledger.quarantined().values()) >= load.unique + load.bad, 240)
    eventually(lambda: all(feed.waiting(queue) == 0 for queue in (names.USAGE_QUEUE, names.PAYMENT_QUEUE)), 60)
    eventually(lambda: _balances(ledger) == dict(load.balances), 60, "balances equal our own sums")
    if feed._redis is not None:
        # What a worker killed between commit and flag had taken comes again after 15 seconds, and its flag only then.
        eventually(lambda: feed.unacknowledged() == 0, 60, "nothing is held for the dead")
    assert [worker.stop() for worker in workers] == [0, 0]
    quarantined = ledger.quarantined()
    print(
        f"{deaths.total()} kills {dict(deaths)}; {load.sent} events sent: {ledger.usages} booked, {load.repeated} sent "
        f"twice, {sum(quarantined.values())} quarantined; with redeliveries {ledger.duplicates} duplicates were seen"
    )
    assert deaths.total() >= kills
    assert load.sent >= events
    assert ledger.usages == load.unique
    assert quarantined == {"negative_quantity": load.bad}
    assert ledger.duplicates >= load.repeated
    ledger.verify()
    _compare_with_redis(ledger, redis_url)


def _balances(ledger: Ledger) -> dict[str, int]:
    with psycopg.connect(ledger.url) as conn:
        query = "SELECT workspace_id, (balance * 1000000000000)::bigint FROM taximeter.workspaces"
        return dict(conn.execute(query).fetchall())


def _compare_with_redis(ledger: Ledger, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client, psycopg.connect(ledger.url) as conn:
        query = "SELECT workspace_id, trim_scale(balance)::text, ai_enabled, status FROM taximeter.workspace_balance"
        for workspace, balance, enabled, status in conn.execute(query):
            assert client.hget(names.balance_key(workspace), "balance") == balance
            assert client.hmget(names.flag_key(workspace), "enabled", "status") == ["1" if enabled else "0", status]


@pytest.mark.timeout(900)
def test_killed_in_a_loop_nothing_is_lost_or_charged_twice(run):
    run(4, 10_000)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_killed_thirty_times_nothing_is_lost_or_charged_twice(run):
    run(30, 100_000)
