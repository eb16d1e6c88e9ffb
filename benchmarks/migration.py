"""Does `taximeter migrate` stop booking on a large log? From 0020 on: what brought user and tags, and all after it.

    python -m benchmarks.migration --usages 20000000

The log is generated on the schema of 0020. Then workers of the release before (0.1.0, out of the project's history) book what
this release's SDK publishes at a steady rate, and `taximeter migrate` is run meanwhile, one migration after the other. How
many usages are booked is looked at every 20 ms: the longest time in which none was is told for each migration and for
the quiet time before. At the end all is booked, and `verify` recomputes every balance.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from benchmarks.generate import Shape, fill
from benchmarks.sides import BOOKED, check
from benchmarks.stack import Stack, running_stack, wait_for
from fault_injection.previous import unpack
from taximeter import Meter
from taximeter_db import connect, migrate

BEFORE = "0020"
DATABASE = "large"
WORKERS = 2
QUIET_SECONDS = 20.0
SETTLE_SECONDS = 3.0
LOOK_SECONDS = 0.02
PRICES = (
    "prices",
    "set",
    "--provider",
    "p",
    "--model",
    "m",
    "--unit",
    "input_tokens",
    "--price",
    "1",
    "--per",
    "1000000",
)


class Bookings:
    """How many usages were booked at which moment."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._ending = threading.Event()
        self.seen: list[tuple[float, int]] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with connect.connection(self._url, profile=connect.MIGRATIONS) as conn:
            while not self._ending.wait(LOOK_SECONDS):
                (count,) = conn.execute(BOOKED).fetchone()  # type: ignore[misc]
                self.seen.append((time.monotonic(), count))

    def longest_pause(self, since: float, until: float) -> float:
        """The longest time within which nothing was booked, in seconds."""
        within = [one for one in self.seen if since <= one[0] <= until]
        moments = [within[0][0]]
        moments += [after[0] for before, after in pairwise(within) if after[1] > before[1]]
        return max(after - before for before, after in pairwise([*moments, within[-1][0]]))

    def rate(self, since: float, until: float) -> float:
        """Usages booked a second."""
        within = [one for one in self.seen if since <= one[0] <= until]
        return (within[-1][1] - within[0][1]) / (within[-1][0] - within[0][0])

    @contextmanager
    def watched(self) -> Iterator[Bookings]:
        self._thread.start()
        try:
            yield self
        finally:
            self._ending.set()
            self._thread.join()


class Traffic:
    """This release's SDK, which records at a steady rate."""

    def __init__(self, settings: dict[str, str], rate: int, workspaces: list[str]) -> None:
        self._rate = rate
        self._workspaces = workspaces
        self._ending = threading.Event()
        self._meter = Meter(broker_url=settings["TAXIMETER_BROKER_URL"], spool=settings["TAXIMETER_SPOOL"])
        self._thread = threading.Thread(target=self._run)
        self.sent = 0

    def _run(self) -> None:
        begun = time.monotonic()
        while not self._ending.wait(0.005):
            due = int((time.monotonic() - begun) * self._rate)
            while self.sent < due:
                self._meter.record(
                    self._workspaces[self.sent % len(self._workspaces)],
                    tool="chat",
                    provider="p",
                    model="m",
                    quantities={"input_tokens": 100},
                )
                self.sent += 1

    @contextmanager
    def flowing(self) -> Iterator[Traffic]:
        self._thread.start()
        try:
            yield self
        finally:
            self._ending.set()
            self._thread.join()
            self._meter.flush(60)
            self._meter.close()


def prepare(stack: Stack, usages: int) -> dict[str, str]:
    """A log of that size on the schema of before, and workers of the release before on it."""
    previous = unpack(stack.folder / "previous")
    if previous is None:
        raise SystemExit(
            "The release before is taken out of the project's history, which is not here. Clone the project."
        )
    stack.create(DATABASE, None)
    settings = stack.around(DATABASE)
    url = settings["TAXIMETER_DATABASE_URL"]
    previous.command("migrate", environment=settings)
    previous.command(*PRICES, environment=settings)
    migrate.upgrade(url, BEFORE)
    shape = Shape(usages=usages)
    begun = time.monotonic()
    fill(url, shape, lambda done: print(f"  {done:,} usages", flush=True), profile=connect.MIGRATIONS)
    print(f"{usages:,} usages on the schema of {BEFORE} in {time.monotonic() - begun:.0f} s", flush=True)
    arguments = ["-m", "celery", "-A", "taximeter_worker", "worker", "--loglevel", "WARNING"]
    for number in range(WORKERS):
        more = {**settings, **previous.variables, "TAXIMETER_METRICS_PORT": "0"}
        stack.spawn([*arguments, "-n", f"old{number}@%h"], more, f"worker-{number}.log")
    stack.wait_for_consumers(settings, WORKERS)
    return settings


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.migration", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--usages", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=500, help="usages a second that are booked meanwhile (500)")
    given = parser.parse_args()
    with running_stack() as stack:
        settings = prepare(stack, given.usages)
        measure(settings, given.usages, given.rate)


def measure(settings: dict[str, str], usages: int, rate: int) -> None:
    """Migrate while bookings go on, and print what that did to them."""
    url = settings["TAXIMETER_DATABASE_URL"]
    workspaces = [Shape(usages=0).workspace_id(number) for number in range(Shape(usages=0).workspaces)]
    revisions = sorted(
        path.name[:4] for path in (Path(migrate.__file__).parent / "migrations" / "versions").glob("0*.py")
    )
    print(f"{'':10}{'took':>10}{'booked':>12}{'longest pause':>16}")
    traffic = Traffic(settings, rate, workspaces)
    with Bookings(url).watched() as bookings:
        with traffic.flowing():
            wait_for(lambda: bool(bookings.seen) and bookings.seen[-1][1] > usages + rate, 120, "the first bookings")
            time.sleep(QUIET_SECONDS)
            now = time.monotonic()
            tell("before", None, bookings, now - QUIET_SECONDS, now)
            for revision in (one for one in revisions if one > BEFORE):
                begun = time.monotonic()
                migrate.upgrade(url, revision)
                took = time.monotonic() - begun
                time.sleep(SETTLE_SECONDS)  # what a lock has held up shows only when it is through
                tell(revision, took, bookings, begun, time.monotonic())
            migrate.upgrade(url)
        wait_for(lambda: bookings.seen[-1][1] == usages + traffic.sent, 120, "the last bookings")
    begun = time.monotonic()
    check(url, usages + traffic.sent)
    print(f"{usages + traffic.sent:,} usages verified in {time.monotonic() - begun:.0f} s", flush=True)


def tell(name: str, took: float | None, bookings: Bookings, since: float, until: float) -> None:
    """Print a line."""
    seconds = "" if took is None else f"{took:.2f} s"
    pause = bookings.longest_pause(since, until)
    print(f"{name:10}{seconds:>10}{bookings.rate(since, until):>10,.0f}/s{pause * 1000:>13,.0f} ms", flush=True)


if __name__ == "__main__":
    main()
