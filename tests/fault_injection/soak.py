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

from fault_injection import faults
from fault_injection.audit import Expected, Found, expect, look
from fault_injection.holds import Held, all_booked, judge
from fault_injection.spender import WORKSPACES as HOLDING
from fault_injection.system_under_test import SystemUnderTest
from taximeter import names
from waiting import eventually
from workers import Feed

PROGRESS_SECONDS = 15.0
SLOW_SECONDS = 25.0
"""A recovery that took this long is told at once."""


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
    held: Held
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
            self.held.line(),
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
        assert self.held.wrong == []
        assert self.held.usages > 0


class Soak:
    """A run on a system that is up."""

    def __init__(self, system: SystemUnderTest, size: Size) -> None:
        self._stage = system
        self._size = size
        self._lock = threading.Lock()
        self._recoveries: dict[str, list[float]] = defaultdict(list)
        self._missed = self._ended_workers = 0
        self._failed: BaseException | None = None
        self._began = time.monotonic()
        self._spoke_at = 0.0

    def run(self) -> Result:
        """Upgrade, strike until there were enough faults and events; then let everything settle, and reckon."""
        for what in self._stage.missing():
            self.say(f"not on this machine: {what}")
        if self._stage.previous:
            self._upgrade()
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

    def _upgrade(self) -> None:
        """`docs/upgrades.md` under traffic: the schema first, then one worker after the other."""
        system = self._stage
        probe = system.probes["probe-3"]
        probe.send()
        probe.wait()
        system.migrate()
        for worker in system.workers:
            probe.send()
            probe.wait()
            self.say("the schema is this release's; a worker of the release before books on it, and is replaced")
            assert worker.stop(90) == 0, worker.text()[-3000:]
            worker.start()
            system.workers_are_up()
        probe.send()
        probe.wait()
        system.flags_are_right()

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
        chosen = kinds
        if self._size.kinds is not None:
            chosen = {name: kind for name, kind in kinds.items() if name in self._size.kinds}
        probe = self._stage.probes[lane]
        for name, fault in faults.deck(chosen, dice):
            if self._over:
                return
            time.sleep(dice.uniform(0, 1))
            if kinds is faults.PROCESSES and (ended := faults.supervise(self._stage)):
                self._ended_workers += ended
                self.say(f"{ended} workers had ended by themselves and were started again")
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
        system = self._stage
        faults.workers_back(system)
        system.stop_producers()
        for probe in system.probes.values():
            probe.close()
        system.corrected.close()
        expected = expect(system.seed, system.accepted(), system.lanes())
        self.say(f"{expected.accepted:,} accepted and confirmed; waiting until all of it has ended somewhere")
        feed = Feed(system.broker_url)
        try:
            queues = (names.USAGE_QUEUE, names.PAYMENT_QUEUE)
            eventually(lambda: all(feed.waiting(queue) == 0 for queue in queues), 600, "the queues are empty")
        finally:
            feed.close()
        with contextlib.suppress(AssertionError):  # the reckoning says which are missing
            eventually(lambda: self._ended() >= expected.books + expected.quarantined.total(), 90)
        with psycopg.connect(system.postgres.url(), autocommit=True) as conn:
            eventually(lambda: conn.execute("SELECT count(*) FROM taximeter.stale_flags").fetchone() == (0,), 60)
            with contextlib.suppress(AssertionError):
                eventually(lambda: all_booked(system, conn), 60)
            held = judge(system, conn)
        codes = [worker.stop(120) for worker in system.workers]
        assert codes == [0] * len(codes)
        found = look(expected, system.postgres.url(), system.flags.url("admin"))
        return Result(
            system.seed, time.monotonic() - self._began, expected, found, held, self._recoveries, self._missed
        )

    def _ended(self) -> int:
        query = """SELECT (SELECT coalesce(sum(usage_count + payment_count), 0) FROM taximeter.workspaces
                           WHERE workspace_id <> ALL(%s))
                        + (SELECT count(*) FROM taximeter.quarantine WHERE resolved_at IS NULL)"""
        with psycopg.connect(self._stage.postgres.url()) as conn:
            row = conn.execute(query, [list(HOLDING)]).fetchone()
        return int(row[0]) if row else 0


def soak(folder: Path, broker: str, seed: int, size: Size, environment: Mapping[str, str]) -> Result:
    """Run once from nothing, print seed, progress and table, and return them. Raises AssertionError if something is wrong."""
    print(f"\nSEED={seed} on {broker}: at least {size.events:,} events and {size.faults} faults", flush=True)
    system = None
    try:
        system = SystemUnderTest(
            folder,
            broker,
            seed=seed,
            rate=size.rate,
            producers=size.producers,
            environment=environment,
            database_megabytes=size.database_megabytes,
        )
        result = Soak(system, size).run()
        print(result.table(), flush=True)
    finally:
        if system is not None:
            _keep_logs(folder)
            system.close()
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
