"""How long after its publication does a usage that empties a balance switch enabled() off in another process?

One event a message, from a plain AMQP client, at a steady rate; every event takes a workspace of its own below its
minimum. A check every millisecond sees the flip.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

from benchmarks import pacing
from benchmarks.results import Result
from benchmarks.sides import check
from benchmarks.stack import Stack, running_stack, wait_for
from benchmarks.stats import in_turns, percentile
from taximeter import Meter
from taximeter_db import connect
from taximeter_db.ledger import booking
from taximeter_db.ledger.events import Payment

LOOK_SECONDS = 0.001
"""Between two looks: what is measured is up to this much too long, and the looking takes little of the machine."""
PAID = 1_000_000_000  # picodollars; each event costs 1 USD


def _payments(count: int) -> list[Payment]:
    now = time.time_ns() // 1000
    return [Payment(f"flip-{n:06d}", "start", b"0" * 16, "top_up", PAID, None, None, now, b"{}") for n in range(count)]


def measure(stack: Stack, per_second: float, count: int) -> dict[str, Any]:
    """Milliseconds from publication to enabled() false, over `count` flips."""
    environment = stack.fresh(f"flip_{time.monotonic_ns()}")
    with connect.booking_connection(environment["TAXIMETER_DATABASE_URL"]) as conn:
        booking.book(conn, [], _payments(count))
    workers = stack.workers(1, environment)
    meter = Meter(redis_url=environment["TAXIMETER_REDIS_URL"])
    for number in range(count):  # every answer is in the process before the first event
        # A first answer is asked of Valkey, which may be busy; then the policy answers, and that is not what is measured.
        wait_for(lambda name=f"flip-{number:06d}": meter.enabled(name), 10, "a first answer")  # type: ignore[misc]
    published: deque[tuple[str, float]] = deque()
    sender = threading.Thread(
        target=pacing.publish,
        args=(
            environment["TAXIMETER_BROKER_URL"],
            count,
            per_second,
            lambda number: f"flip-{number:06d}",
            lambda *sent: published.append(sent),
        ),
    )
    cpu = stack.cpu_meter(worker=workers)
    sender.start()
    milliseconds = _watch(meter, published, count, count / per_second + 60)
    used = cpu.used()
    sender.join()
    meter.close()
    stack.end(*workers)
    check(environment["TAXIMETER_DATABASE_URL"], count)
    stack.drop(environment)
    return {
        "events": count,
        "p50_ms": percentile(milliseconds, 50),
        "p99_ms": percentile(milliseconds, 99),
        "max_ms": max(milliseconds),
        "cpu_us_per_event": {role: seconds / count * 1e6 for role, seconds in used.items()},
    }


def _watch(meter: Meter, published: deque[tuple[str, float]], count: int, seconds: float) -> list[float]:
    """Ask for every workspace that was published for until it is switched off."""
    waiting: list[tuple[str, float]] = []
    milliseconds: list[float] = []
    deadline = time.monotonic() + seconds
    while len(milliseconds) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{count - len(milliseconds)} flips were never seen")
        while published:
            waiting.append(published.popleft())
        still = []
        for workspace_id, sent in waiting:
            if meter.enabled(workspace_id):
                still.append((workspace_id, sent))
            else:
                milliseconds.append((time.monotonic() - sent) * 1000)
        waiting = still
        time.sleep(LOOK_SECONDS)
    return milliseconds


def run(form: str) -> Result:
    """Both rates in turns, three times."""
    seconds = {"short": 5, "full": 20, "smoke": 0.2}[form]
    with running_stack() as stack:
        sides = in_turns(
            1 if form == "smoke" else 3,
            {
                f"{rate:,}/s": lambda _, rate=rate: measure(stack, rate, int(rate * seconds))  # type: ignore[misc]
                for rate in (500, 2_000)
            },
        )
    result = Result(sides=sides)
    for side in sides:
        result.take(f"flip {side}", side, "p99_ms")
    return result
