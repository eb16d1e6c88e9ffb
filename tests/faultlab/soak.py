"""One seeded run: traffic, faults of all kinds that overlap, and the reckoning.

The seed decides what is sent, which faults strike, in what order and with what parameters. When exactly they strike is the
machine's own: processes and kernels keep no time table.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from faultlab import faults
from faultlab.audit import Expected, Found, expect, look
from faultlab.stage import Stage
from taximeter import names
from taximeter_cli.embedded.valkey import FLAG_DATABASE
from workers import Feed, eventually

PROGRESS_SECONDS = 15.0
SLOW_SECONDS = 25.0
"""A recovery that took so long is told at once."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of everything. ``rate`` is events a second of all producers together."""

    events: int
    faults: int
    rate: float
    producers: int = 3
    database_megabytes: int = 3000
    kinds: tuple[str, ...] | None = None
    """Only these kinds of fault; all if None."""


@dataclass
class Result:
    """What a run has shown."""

    seed: int
    seconds: float
    expected: Expected
    found: Found
    recoveries: Mapping[str, list[float]]
    did_not_happen: int

    def table(self) -> str:
        """For a person and for docs/guarantees.md."""
        expected, found = self.expected, self.found
        count = sum(map(len, self.recoveries.values()))
        lines = [
            f"Seed {self.seed}: {expected.accepted:,} events accepted, {count} faults, {self.seconds:,.0f} s.",
            "",
            "| accepted | booked | duplicates | quarantined | lost | double | wrong balances | wrong flags | verify |",
            "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
            f"| {' | '.join(self._numbers())} |",
            "",
            f"(With what was published or delivered again, the ledger saw {found.duplicates_seen:,} duplicates.)",
            "",
            "| fault | times | recovery p50, s | p95, s |",
            "| --- | ---: | ---: | ---: |",
        ]
        for name in sorted(self.recoveries):
            times = sorted(self.recoveries[name])
            p95 = times[min(len(times) - 1, int(0.95 * len(times)))]
            lines.append(f"| {name} | {len(times)} | {statistics.median(times):.1f} | {p95:.1f} |")
        return "\n".join(lines)

    def _numbers(self) -> list[str]:
        found = self.found
        counts = (
            self.expected.accepted,
            found.booked,
            self.expected.repeats,
            found.quarantined,
            len(found.lost),
            len(found.double) + len(found.strangers),
            len(found.wrong_balances),
            len(found.wrong_flags),
        )
        return [*(f"{count:,}" for count in counts), "FAULTS" if found.verify_faults else "clean"]

    def check(self) -> None:
        """Raise AssertionError with the first of what is wrong."""
        found = self.found
        wrong = [*found.lost, *found.double, *found.strangers, *found.wrong_balances, *found.wrong_flags]
        assert found.right, [*wrong[:20], *found.verify_faults[:20]]
        assert self.expected.accepted == found.booked + self.expected.repeats + found.quarantined
        assert found.duplicates_seen >= self.expected.kinds["repeat"]


class Soak:
    """A run on a stage that stands."""

    def __init__(self, stage: Stage, size: Size) -> None:
        self._stage = stage
        self._size = size
        self._lock = threading.Lock()
        self._recoveries: dict[str, list[float]] = defaultdict(list)
        self._missed = 0
        self._failed: BaseException | None = None
        self._began = time.monotonic()
        self._spoke_at = 0.0

    def run(self) -> Result:
        """Strike until there were enough faults and events; then let everything settle, and reckon."""
        seed = self._stage.seed
        hands = [
            threading.Thread(target=self._guarded, args=(faults.PROCESSES, "probe-1", random.Random(seed + 1))),
            threading.Thread(target=self._guarded, args=(faults.CONNECTIONS, "probe-2", random.Random(seed + 2))),
        ]
        for hand in hands:
            hand.start()
        self._guarded(faults.SERVERS, "probe-3", random.Random(seed))
        for hand in hands:
            hand.join()
        if self._failed is not None:
            raise self._failed
        self.say("faults are over; everything is let run out")
        return self._settle()

    def _guarded(self, kinds: dict[str, tuple[faults.Fault, int]], lane: str, dice: random.Random) -> None:
        try:
            self._strike(kinds, lane, dice)
        except BaseException as error:
            self._failed = self._failed or error

    @property
    def _over(self) -> bool:
        with self._lock:
            struck = sum(map(len, self._recoveries.values()))
        enough = struck >= self._size.faults and sum(self._stage.accepted().values()) >= self._size.events
        return enough or self._failed is not None

    def _strike(self, kinds: dict[str, tuple[faults.Fault, int]], lane: str, dice: random.Random) -> None:
        if self._size.kinds is not None:
            kinds = {name: kind for name, kind in kinds.items() if name in self._size.kinds}
        probe = self._stage.probes[lane]
        for name, fault in faults.deck(kinds, dice):
            if self._over:
                return
            time.sleep(dice.uniform(0, 1))
            probe.send()
            happened = fault(self._stage, dice)
            probe.send()
            seconds = probe.wait()
            with self._lock:
                if happened is False:
                    self._missed += 1
                else:
                    self._recoveries[name].append(seconds)
            self._progress(f"{name}: recovered after {seconds:.1f} s", slow=seconds > SLOW_SECONDS)

    def _progress(self, text: str, *, slow: bool) -> None:
        if slow or time.monotonic() - self._spoke_at > PROGRESS_SECONDS:
            self._spoke_at = time.monotonic()
            with self._lock:
                struck = sum(map(len, self._recoveries.values()))
            self.say(f"{sum(self._stage.accepted().values()):,} events accepted, {struck} faults; {text}")

    def say(self, text: str) -> None:
        """A line of progress."""
        print(f"{datetime.now(UTC):%H:%M:%S} [{time.monotonic() - self._began:6.0f} s] {text}", flush=True)

    def _settle(self) -> Result:
        stage = self._stage
        faults.workers_back(stage)
        stage.stop_producers()
        for probe in stage.probes.values():
            probe.close()
        accepted = stage.accepted()
        expected = expect(stage.seed, accepted, {name: probe.sent for name, probe in stage.probes.items()})
        self.say(f"{expected.accepted:,} accepted and confirmed; waiting until all of it has ended somewhere")
        feed = Feed(stage.broker_url)
        try:
            queues = (names.USAGE_QUEUE, names.PAYMENT_QUEUE)
            eventually(lambda: all(feed.waiting(queue) == 0 for queue in queues), 600, "the queues are empty")
        finally:
            feed.close()
        with contextlib.suppress(AssertionError):  # the reckoning says which are missing
            eventually(lambda: self._ended() >= expected.books + expected.quarantined.total(), 90)
        with psycopg.connect(stage.postgres.url(), autocommit=True) as conn:
            eventually(lambda: conn.execute("SELECT count(*) FROM taximeter.stale_flags").fetchone() == (0,), 60)
        codes = [worker.stop(120) for worker in stage.workers]
        assert codes == [0] * len(codes)
        found = look(expected, stage.postgres.url(), stage.flags.url(FLAG_DATABASE))
        return Result(stage.seed, time.monotonic() - self._began, expected, found, self._recoveries, self._missed)

    def _ended(self) -> int:
        query = """SELECT (SELECT coalesce(sum(usage_count + payment_count), 0) FROM taximeter.workspaces)
                        + (SELECT count(*) FROM taximeter.quarantine WHERE resolved_at IS NULL)"""
        with psycopg.connect(self._stage.postgres.url()) as conn:
            row = conn.execute(query).fetchone()
        return int(row[0]) if row else 0


def soak(folder: Path, broker: str, seed: int, size: Size, environment: Mapping[str, str]) -> Result:
    """Run once from nothing, print seed, progress and table, and return them. Raises AssertionError if something is wrong."""
    print(f"\nSEED={seed} on {broker}: at least {size.events:,} events and {size.faults} faults", flush=True)
    stage = None
    try:
        stage = Stage(
            folder,
            broker,
            seed=seed,
            rate=size.rate,
            producers=size.producers,
            environment=environment,
            database_megabytes=size.database_megabytes,
        )
        result = Soak(stage, size).run()
        print(result.table(), flush=True)
    finally:
        if stage is not None:
            _keep_logs(folder)
            stage.close()
    result.check()
    return result


def _keep_logs(folder: Path) -> None:
    """For who wants to know why something took long: ``SOAK_LOGS`` names a folder that they are copied to."""
    if wanted := os.environ.get("SOAK_LOGS"):
        for log in [*folder.glob("*.log"), *folder.glob("*.json"), *folder.glob("d/pg/log"), *folder.glob("b/log")]:
            target = Path(wanted) / log.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(log, target)


def seed_of(name: str = "SEED") -> int:
    """The seed that was asked for, or a new one."""
    return int(os.environ.get(name) or random.randrange(10**9))
