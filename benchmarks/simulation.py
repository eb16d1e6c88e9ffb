"""A discrete simulation of booking: workers that share queues, a database with a number of cores, and rows that only one may hold.

What the arithmetic of `benchmarks.capacity` cannot see is waiting: every batch of a Zipf load debits the busiest workspaces, and
from its debit to its commit nobody else can. So batches of one queue take turns on those rows, however many workers there are;
shards keep the workspaces of different queues apart.

The stages of a batch, after its messages were taken from the shard's queue:

1. decode and price: the worker's interpreter, one batch at a time for all of its posters (one by default)
2. claim the keys: a core of the database
3. debit, append: the shard's hot rows; the interpreter packs the rows, and a core of the database takes them
4. commit: the hot rows still; no core, the disk works
5. flags: the interpreter again

Times are drawn around their means (gamma, shape 20), arrivals are Poisson. The same seed gives the same result.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Generator, Iterator

import msgspec

MESSAGE_EVENTS = 500
_NOISE_SHAPE = 20.0


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What is simulated. Times in microseconds an event, `commit_us` of a batch; `events_per_second` arrive.

    `machine_cores`: everything, producers and broker too (`other_us`), shares this number of cores; None: parts have their own.
    `hottest_shard_share`: of all events; 1/shards where the load is even.
    """

    events_per_second: float
    decode_us: float
    flag_us: float
    claim_us: float
    locked_us: float
    append_us: float = 0.0
    commit_us: float
    workers: int = 2
    posters: int = 1
    shards: int = 1
    database_cores: int = 16
    machine_cores: int | None = None
    other_us: float = 0.0
    batch_events_max: int = 5_000
    hottest_shard_share: float | None = None
    seconds: float = 10.0


class Outcome(msgspec.Struct, frozen=True):
    """What came of it: the rate, how long events waited and were booked, and how busy what was."""

    events_per_second: float
    p50_ms: float
    p99_ms: float
    mean_batch: float
    database_busy: float
    hot_rows_busy: float
    interpreters_busy: float


class Resource:
    """Something that a limited number may hold at a time; first come, first served."""

    def __init__(self, capacity: int) -> None:
        self.free = self.capacity = capacity
        self.waiting: deque[Process] = deque()
        self.used = 0.0


Step = tuple[str, Resource | float]
Process = Generator[Step, None, None]


class Clock:
    """Runs processes, which yield what they wait for: time, a resource, or to be woken."""

    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, Process]] = []
        self._count = 0

    def at(self, moment: float, process: Process) -> None:
        """Go on with a process then."""
        self._count += 1
        heapq.heappush(self._queue, (moment, self._count, process))

    def run(self, until: float) -> None:
        """Until a moment."""
        while self._queue and self._queue[0][0] <= until:
            self.now, _, process = heapq.heappop(self._queue)
            self._advance(process)

    def _advance(self, process: Process) -> None:
        for what, thing in process:
            if what == "sleep":
                assert isinstance(thing, float)
                self.at(self.now + thing, process)
                return
            assert isinstance(thing, Resource)
            if what == "take":
                if thing.free:
                    thing.free -= 1
                else:
                    thing.waiting.append(process)
                    return
            elif thing.waiting:
                self.at(self.now, thing.waiting.popleft())
            else:
                thing.free += 1


class Shard:
    """A queue of messages, each with its time of arrival, and the rows that only one batch at a time may hold."""

    def __init__(self) -> None:
        self.messages: deque[float] = deque()
        self.rows = Resource(1)


class Simulation:
    """One run."""

    def __init__(self, setup: Setup, seed: int = 1) -> None:
        self.setup = setup
        self.clock = Clock()
        self.random = random.Random(seed)
        self.database = Resource(setup.database_cores)
        self.machine = Resource(setup.machine_cores or 10**6)
        self.interpreters = [Resource(1) for _ in range(setup.workers)]
        self.shards = [Shard() for _ in range(setup.shards)]
        self.waits: list[tuple[float, float]] = []
        self.batches = 0

    def run(self) -> Outcome:
        """Let it warm up for a fifth of the time, then measure."""
        setup, seconds = self.setup, self.setup.seconds
        for number, shard in enumerate(self.shards):
            first = 1 / setup.shards if setup.hottest_shard_share is None else setup.hottest_shard_share
            share = first if number == 0 else (1 - first) / max(1, setup.shards - 1)
            self.clock.at(0.0, self._arrivals(shard, setup.events_per_second * share))
        for number in range(setup.workers):
            for poster in range(setup.posters):
                mine = [s for index, s in enumerate(self.shards) if index % setup.workers == number % setup.shards]
                mine = mine or [self.shards[number % setup.shards]]
                self.clock.at(0.0, self._poster(self.interpreters[number], mine, poster))
        warm = seconds / 5
        self.clock.run(warm)
        for resource in (self.database, *self.interpreters, *(shard.rows for shard in self.shards)):
            resource.used = 0.0
        batches = self.batches
        self.clock.run(seconds)
        waits = sorted(wait for end, wait in self.waits if end > warm)
        events, span = len(waits) * MESSAGE_EVENTS, seconds - warm
        return Outcome(
            events_per_second=events / span,
            p50_ms=1_000 * waits[len(waits) // 2],
            p99_ms=1_000 * waits[len(waits) * 99 // 100],
            mean_batch=events / max(1, self.batches - batches),
            database_busy=self.database.used / span / setup.database_cores,
            hot_rows_busy=max(shard.rows.used for shard in self.shards) / span,
            interpreters_busy=sum(resource.used for resource in self.interpreters) / span / setup.workers,
        )

    def _arrivals(self, shard: Shard, rate: float) -> Process:
        pause = MESSAGE_EVENTS / rate
        while True:
            yield "sleep", self.random.expovariate(1 / pause)
            # A producer that cannot get a processor sends later: so a shared machine slows its own load down.
            yield from self._work(self.setup.other_us * MESSAGE_EVENTS)
            shard.messages.append(self.clock.now)

    def _poster(self, interpreter: Resource, shards: list[Shard], offset: int) -> Process:
        turn, setup = offset, self.setup
        while True:
            shard = shards[turn % len(shards)]
            turn += 1
            if not shard.messages:
                yield "sleep", 0.001
                continue
            count = min(len(shard.messages), max(1, setup.batch_events_max // MESSAGE_EVENTS))
            arrived = [shard.messages.popleft() for _ in range(count)]
            events = count * MESSAGE_EVENTS
            yield from self._work(setup.decode_us * events, interpreter)
            yield from self._work(setup.claim_us * events, self.database)
            yield "take", shard.rows
            began = self.clock.now
            yield from self._work(setup.append_us * events, interpreter)
            yield from self._work(setup.locked_us * events, self.database)
            yield "sleep", self._drawn(setup.commit_us)
            shard.rows.used += self.clock.now - began
            yield "give", shard.rows
            yield from self._work(setup.flag_us * events, interpreter)
            self.batches += 1
            self.waits += [(self.clock.now, self.clock.now - moment) for moment in arrived]

    def _work(self, microseconds: float, *resources: Resource) -> Iterator[Step]:
        if not microseconds:
            return
        for resource in (*resources, self.machine):
            yield "take", resource
        seconds = self._drawn(microseconds)
        yield "sleep", seconds
        for resource in (self.machine, *resources):
            resource.used += seconds
            yield "give", resource

    def _drawn(self, microseconds: float) -> float:
        return self.random.gammavariate(_NOISE_SHAPE, microseconds / 1e6 / _NOISE_SHAPE)


def simulate(setup: Setup, seed: int = 1) -> Outcome:
    """Run it once."""
    return Simulation(setup, seed).run()
