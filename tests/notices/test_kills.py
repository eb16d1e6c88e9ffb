"""Deliverers, workers and receivers killed in a loop: no notice is lost, and each workspace's come in order.

Two workers book and deliver, one more process only delivers, and the receiver notes what it got in a file before it answers.
Again and again one of them dies by SIGKILL, at a random moment or around the sending of a notice, while workspaces run out of
credit and are paid for. ``TAXIMETER_SEED=<printed seed>`` repeats what is killed in which order, and ``KILLS`` says how often.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from taximeter_cli.embedded.logins import WORKER, part_url
from taximeter_cli.embedded.process import free_port
from taximeter_db.connect import connection
from taximeter_db.notices import targets
from taximeter_db.notices.targets import NewTarget
from waiting import eventually
from workers import Feed, payment, usage

WORKSPACES = 5
PATIENCE_SECONDS = 240.0
"""A machine that does much else starts a worker in a minute."""
_RECEIVER = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
noted = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers["content-length"])
        body = self.rfile.read(length)
        if len(body) < length:  # the sender was killed in the middle
            return
        workspace = json.loads(body)["data"]["workspace"]
        os.write(noted, f"{workspace} {self.headers['webhook-id']}\\n".encode())
        self.send_response(204)
        self.end_headers()
    def log_message(self, *_):
        pass
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
_DELIVERER = """
import sys, time
from taximeter_worker.metrics import Metrics
from taximeter_worker.notices.deliverer import Deliverer
from taximeter_worker.settings import Settings
deliverer = Deliverer(Settings(database_url=sys.argv[1], broker_url="redis://", redis_url="redis://"), Metrics())
while True:
    deliverer.run()
    time.sleep(0.05)
"""


class Traffic:
    """Publishes usages that take workspaces below their minimum, and payments that bring them back, until it is told to stop."""

    def __init__(self, feed: Feed, dice: random.Random) -> None:
        self._feed, self._dice = feed, dice
        self.sent = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._stopped.wait(0.05):
            workspace = f"w{self._dice.randrange(WORKSPACES)}"
            if self._dice.random() < 0.5:
                self._feed.send(usage(workspace, self._dice.choice([1_000, 400_000])))
            else:
                number += 1
                self._feed.pay(payment(workspace, "0.4", payment_id=f"p{number}"))
            self.sent += 1

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


class Process:
    """A Python process that is killed and started again."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self.start()

    def start(self, **more: str) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", *self._arguments], env={**os.environ, **more})

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        assert self._process.wait(30) == -signal.SIGKILL


class Stage:
    """Everything that is killed, and what arrived."""

    def __init__(self, folder: Path, url: str, new_worker: Callable[[], Any], feed: Feed, dice: random.Random) -> None:
        self.arrivals = folder / "arrivals"
        self.arrivals.touch()
        port = free_port()
        with connection(url) as conn:
            address = f"http://127.0.0.1:{port}/"
            new = NewTarget(channel="webhook", address=address, workspace_id="*", allow_private=True)
            targets.add(conn, new, None, "olga")
        self._conn = psycopg.connect(url, autocommit=True)
        self._dice = dice
        self.deaths = 0
        """Beside those that a strike waited for."""
        self.parts: dict[str, list[Any]] = {
            "receiver": [Process(_RECEIVER, str(port), str(self.arrivals))],
            "deliverer": [Process(_DELIVERER, part_url(url, WORKER))],
            "worker": [new_worker().start(), new_worker().start()],
        }
        eventually(lambda: all(worker.connected for worker in self.parts["worker"]), PATIENCE_SECONDS, "the workers")
        self._traffic = Traffic(feed, dice)

    def arrived(self) -> list[tuple[str, str]]:
        """Workspace and id of every notice that arrived, in the order of arrival."""
        lines = self.arrivals.read_text().splitlines()
        return [(workspace, notice) for workspace, _, notice in (line.partition(" ") for line in lines)]

    def strike(self, kind: str) -> None:
        """Kill one of a kind once some notices came, or where it dies by itself before that; start it again."""
        part = self._dice.choice(self.parts[kind])
        wanted = len(self.arrived()) + self._dice.randint(1, 6)
        eventually(lambda: len(self.arrived()) >= wanted or not self._lives(part), PATIENCE_SECONDS, "more notices")
        if part.running:
            part.kill()
        self._as_if_a_minute_passed()
        points = ("", "before_notice_sent:", "after_notice_sent:") if kind != "receiver" else ("",)
        point = self._dice.choice(points)
        part.start(TAXIMETER_FAILPOINT=f"{point}{self._dice.randint(1, 8)}" if point else "")

    def _lives(self, part: Any = None) -> bool:
        """Whether a part runs; of the others, those that died where they were told to are started again."""
        for other in (other for parts in self.parts.values() for other in parts):
            if other is not part and not other.running:
                self.deaths += 1
                self._as_if_a_minute_passed()
                other.start(TAXIMETER_FAILPOINT="")
        return part is None or bool(part.running)

    def _as_if_a_minute_passed(self) -> None:
        """Leases of the dead run out, and waits after a failure end."""
        self._conn.execute("UPDATE taximeter.notice_targets SET retry_at = NULL")
        self._conn.execute(
            "UPDATE taximeter.notice_lanes SET leased_until = CASE WHEN lease IS NOT NULL THEN now() END, retry_at = NULL,"
            " due_at = CASE WHEN due_at IS NOT NULL THEN now() END WHERE due_at IS NOT NULL OR lease IS NOT NULL"
        )

    def written(self) -> list[tuple[str, str]]:
        """Workspace and id of every notice, in the order in which they were written."""
        query = "SELECT workspace_id, public_id FROM taximeter.notices ORDER BY notice_id"
        return [(workspace, f"notice_{public_id.hex}") for workspace, public_id in self._conn.execute(query)]

    def settle(self) -> None:
        """Let all that is published be booked, and all that was written be delivered."""
        self._traffic.stop()
        booked = "SELECT coalesce(sum(usage_count + payment_count), 0)::bigint FROM taximeter.workspaces"
        waiting = "SELECT count(*) FROM taximeter.notice_deliveries WHERE state <> 'delivered'"
        self._until(booked, self._traffic.sent, "all is booked")
        self._as_if_a_minute_passed()
        self._until(waiting, 0, "every notice is delivered")

    def _until(self, query: str, count: int, what: str) -> None:
        # Those that are still to die somewhere may do so only now.
        eventually(lambda: self._lives() and self._conn.execute(query).fetchone() == (count,), PATIENCE_SECONDS, what)

    def close(self) -> None:
        self._traffic.stop()
        for part in (part for parts in self.parts.values() for part in parts):
            if part.running:
                part.kill()
        self._conn.close()


def in_order(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Each workspace's notices, each once, where it first occurs."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for workspace, notice in pairs:
        found[workspace].setdefault(notice)
    return {workspace: list(notices) for workspace, notices in found.items()}


@pytest.fixture
def feed(amqp_url: str) -> Iterator[Feed]:
    made = Feed(amqp_url)
    yield made
    made.close()


def run(kills: int, stage: Stage, dice: random.Random) -> None:
    try:
        kinds = [("receiver", "deliverer", "worker")[number % 3] for number in range(kills)]
        dice.shuffle(kinds)
        for kind in kinds:
            stage.strike(kind)
        stage.settle()
        arrived, written = stage.arrived(), stage.written()
        assert in_order(arrived) == in_order(written)
        print(f"{Counter(kinds)}, {stage.deaths} more: {len(written)} notices written, {len(arrived)} arrivals")
        assert len(written) > kills
    finally:
        stage.close()


@pytest.fixture
def new_stage(tmp_path, priced_url, amqp_url, redis_url, new_worker, feed) -> Callable[[random.Random], Stage]:
    return lambda dice: Stage(tmp_path, priced_url, lambda: new_worker(priced_url, amqp_url, redis_url), feed, dice)


def seeded() -> random.Random:
    seed = int(os.environ.get("TAXIMETER_SEED") or random.SystemRandom().randrange(1, 10**9))
    print(f"TAXIMETER_SEED={seed}")
    return random.Random(seed)


@pytest.mark.timeout(900)
def test_none_is_lost_and_none_out_of_order_over_six_kills(new_stage):
    dice = seeded()
    run(6, new_stage(dice), dice)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_none_is_lost_and_none_out_of_order_over_a_hundred_kills(new_stage):
    dice = seeded()
    run(int(os.environ.get("KILLS") or 100), new_stage(dice), dice)
