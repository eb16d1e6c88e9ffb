"""How long after its publication does a usage that crosses the minimum reach a webhook?

One event a message at 2,000 a second, from a plain AMQP client; one in a hundred takes a workspace of its own below its
minimum, the others one workspace that can pay. The receiver notes when each notice arrives.
"""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from benchmarks import pacing
from benchmarks.results import Result
from benchmarks.sides import check
from benchmarks.stack import Stack, running_stack, wait_for
from benchmarks.stats import in_turns, percentile
from taximeter import names
from taximeter_db import connect
from taximeter_db.ledger import booking
from taximeter_db.ledger.events import Payment
from taximeter_db.notices import outbox, targets

PER_SECOND = 2_000
CROSSING_ONE_IN = 100
PAID = 10**12 * 10**8  # picodollars; each event costs 1 USD
_RICH = "rich"


class Receiver:
    """A webhook that notes when each workspace's notice first arrived, by the monotonic clock."""

    def __init__(self) -> None:
        self.arrived: dict[str, float] = {}
        arrived = self.arrived

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                now = time.monotonic()
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                arrived.setdefault(body["data"]["workspace"], now)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            # http.server's own 5 are fewer than the senders: one more would wait a second for its SYN to be sent again.
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _workspace_of(number: int) -> str:
    return _RICH if number % CROSSING_ONE_IN else f"w-{number:06d}"


def measure(stack: Stack, count: int) -> dict[str, Any]:
    """Milliseconds from publication to arrival, over the events that cross."""
    environment = stack.fresh(f"notices_{time.monotonic_ns()}")
    receiver = Receiver()
    with connect.booking_connection(environment["TAXIMETER_DATABASE_URL"]) as conn:
        now = time.time_ns() // 1000
        booking.book(conn, [], [Payment(_RICH, "start", b"0" * 16, "top_up", PAID, None, None, now, b"{}")])
        new = targets.NewTarget(
            channel=targets.WEBHOOK,
            address=receiver.url,
            workspace_id=targets.EVERY_WORKSPACE,
            types=(outbox.WORKSPACE_INSUFFICIENT,),
            allow_private=True,
        )
        targets.add(conn, new, None, "benchmark")
    workers = stack.workers(1, environment)
    # Celery takes its tasks about a second after the usage consumer begins.
    stack.wait_for_consumers(environment, 1, names.TASK_QUORUM_QUEUE)
    published: dict[str, float] = {}
    sender = threading.Thread(
        target=pacing.publish,
        args=(environment["TAXIMETER_BROKER_URL"], count, PER_SECOND, _workspace_of, published.setdefault),
    )
    cpu = stack.cpu_meter(worker=workers)
    sender.start()
    sender.join()
    crossed = [workspace_id for workspace_id in published if workspace_id != _RICH]
    wait_for(lambda: len(receiver.arrived) >= len(crossed), 120, "every notice")
    used = cpu.used()
    stack.end(*workers)
    receiver.close()
    check(environment["TAXIMETER_DATABASE_URL"], count)
    stack.drop(environment)
    milliseconds = [(receiver.arrived[name] - published[name]) * 1000 for name in crossed]
    return {
        "events": count,
        "notices": len(crossed),
        "p50_ms": percentile(milliseconds, 50),
        "p99_ms": percentile(milliseconds, 99),
        "max_ms": max(milliseconds),
        "cpu_us_per_event": {role: seconds / count * 1e6 for role, seconds in used.items()},
    }


def run(form: str) -> Result:
    """Three times."""
    seconds = {"short": 5, "full": 20, "smoke": 0.2}[form]
    with running_stack() as stack:
        sides = in_turns(1 if form == "smoke" else 3, {"2,000/s": lambda _: measure(stack, int(PER_SECOND * seconds))})
    return Result(sides=sides)
