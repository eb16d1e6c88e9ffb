"""The bound on the overdraft: whatever happens in whatever order, a balance is never below

    minimum - (sum over calls of max(0, cost - held)) - usage without a hold.

A real Valkey and a real ledger, the SDK's holds and the worker's booking. Steps: holds are placed, extended, released and
forgotten by tools that died; usages are recorded with them and without, for less and for more than is held; the queue is booked
late, twice, and by workers that were started again; and Redis loses everything.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import msgspec
import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from servers.databases import drop_database, make_database, migrated_template
from taximeter import Hold, InsufficientCredit, Meter, names
from taximeter.holds.amounts import to_usd
from taximeter.holds.server import HoldServer
from taximeter_cli.embedded.postgres import Postgres
from taximeter_cli.embedded.valkey import FLAG_DATABASE
from taximeter_db.connect import booking_connection
from taximeter_db.money import from_numeric_text
from taximeter_worker.background.flag_watch import FlagWatch
from taximeter_worker.background.price_watch import PriceWatch
from taximeter_worker.consume.batch import Booker, Prices
from taximeter_worker.consume.brokers.source import Message
from taximeter_worker.flags import marks
from taximeter_worker.flags.writer import FlagWriter
from taximeter_worker.metrics import Metrics
from taximeter_worker.settings import Settings
from workers import payment, set_prices, usage

SERVERS: dict[str, Any] = {}
COUNT = {"steps": 0, "granted": 0, "short": 0}
MINIMUM = -120_000_000_000
PICO_PER_MICRO = 10**6
WORKSPACES = st.sampled_from(["acme", "beta"])
AMOUNTS = st.sampled_from([1, 40_000, 60_000, 120_000, 500_000])
"""Microdollars; a token of the tests' price book costs one."""


class Model(RuleBasedStateMachine):
    """Calls of many tools on two workspaces."""

    def __init__(self) -> None:
        super().__init__()
        postgres: Postgres = SERVERS["postgres"]
        self.database = make_database(postgres, migrated_template(postgres))
        self.url, self.redis_url = postgres.url(self.database), SERVERS["valkey"].url(FLAG_DATABASE)
        set_prices(self.url)
        self.redis = redis.Redis.from_url(self.redis_url, decode_responses=True)
        self.redis.flushdb()
        self.conn = booking_connection(self.url)
        self.start_worker()
        self.watch()
        self.meter = Meter(redis_url=self.redis_url, timeout_seconds=5)
        self.reader = HoldServer.for_reading(self.redis_url, 5)
        self.open: list[Hold] = []
        self.recorded: dict[str, Hold] = {}
        self.queue: list[dict[str, Any]] = []
        self.allowance = {"acme": 0, "beta": 0}
        """Picodollars by which each balance may lie below its minimum."""

    def start_worker(self) -> None:
        metrics, prices = Metrics(), Prices()
        self.writer = FlagWriter(self.redis_url, 5.0)
        known = Settings(database_url=self.url, broker_url="redis://none", redis_url=self.redis_url, metrics_port=0)
        self.booker = Booker(known, prices, self.writer, metrics)
        PriceWatch(prices, metrics, self.writer, lambda: None)(self.conn)

    def watch(self) -> None:
        FlagWatch(self.writer, Metrics())(self.conn)

    def teardown(self) -> None:
        self.meter.close()
        self.writer.close()
        self.conn.close()
        self.redis.close()
        drop_database(SERVERS["postgres"], self.database)

    @rule(workspace=WORKSPACES, amount=AMOUNTS, cap=st.booleans())
    def a_call_begins(self, workspace: str, amount: int, cap: bool) -> None:
        try:
            hold = self.meter.hold(workspace, max_cost=to_usd(amount), ttl=3600, on_short="cap" if cap else "reject")
        except InsufficientCredit:
            COUNT["short"] += 1
            return
        COUNT["granted"] += 1
        self.open.append(hold)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), amount=AMOUNTS)
    def a_hold_is_changed(self, data: Any, amount: int) -> None:
        hold = data.draw(st.sampled_from(self.open))
        try:
            hold.extend(to_usd(amount))
        except InsufficientCredit:
            COUNT["short"] += 1

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def a_call_is_given_up(self, data: Any) -> None:
        hold = self._take(data)
        hold.release("given up")

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def a_tool_dies(self, data: Any) -> None:
        hold = self._take(data)
        hold._keeper._forget(hold)  # its process renews nothing any more
        self.redis.zadd(names.holds_due_key(hold.workspace_id), {str(hold.id): 1})

    @precondition(lambda self: self.open)
    @rule(data=st.data(), more=st.sampled_from([-30_000, -1, 0, 0, 1, 30_000]))
    def a_call_ends(self, data: Any, more: int) -> None:
        hold = self._take(data)
        cost = max(0, hold.microdollars + more)
        with self.meter._recording(hold.workspace_id, hold):
            self.queue.append(usage(hold.workspace_id, cost, hold=hold.id))
        self.recorded[str(hold.id)] = hold
        self.allowance[hold.workspace_id] += max(0, cost - hold.microdollars) * PICO_PER_MICRO

    @rule(workspace=WORKSPACES, amount=AMOUNTS)
    def a_call_without_a_hold_ends(self, workspace: str, amount: int) -> None:
        self.queue.append(usage(workspace, amount))
        self.allowance[workspace] += amount * PICO_PER_MICRO

    @precondition(lambda self: self.queue)
    @rule(data=st.data(), twice=st.booleans())
    def a_part_of_the_queue_is_booked(self, data: Any, twice: bool) -> None:
        count = data.draw(st.integers(1, len(self.queue)))
        self._book(self.queue[:count])
        if twice:
            self._book(self.queue[:count])
        for event in self.queue[:count]:
            self.recorded.pop(event["data"].get("hold", ""), None)
        del self.queue[:count]

    @rule(workspace=WORKSPACES, amount=st.sampled_from(["0.000000000001", "0.05", "0.5"]))
    def somebody_pays(self, workspace: str, amount: str) -> None:
        self._book([payment(workspace, amount)])

    @rule()
    def the_worker_starts_again(self) -> None:
        self.writer.close()
        self.start_worker()

    @precondition(lambda self: not self.queue)
    @rule()
    def redis_loses_everything(self) -> None:
        self.redis.flushdb()
        self.watch()
        mark = marks.read_ready(self.redis)
        assert mark is not None
        assert mark.holds_from
        for hold in self.open:  # as its process's keeper does, long before the time is over
            self.meter._keeper.extend(hold, hold.microdollars)
        marks.note_ready(self.redis, msgspec.structs.replace(mark, holds_from=0))

    def _take(self, data: Any) -> Hold:
        return self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))

    def _book(self, events: list[dict[str, Any]]) -> None:
        body = json.dumps(events).encode()
        message = Message(body, names.CONTENT_TYPE_BATCH, names.PAYMENT_QUEUE, 0.0, may_pay=True)
        self.booker.book(self.conn, self.booker.decode([message]))

    @invariant()
    def no_balance_is_below_the_bound(self) -> None:
        COUNT["steps"] += 1
        for workspace, text in self.conn.execute("SELECT workspace_id, balance::text FROM taximeter.workspaces"):
            assert from_numeric_text(text) >= MINIMUM - self.allowance[workspace], workspace

    @invariant()
    def redis_holds_what_the_calls_hold(self) -> None:
        for workspace in self.allowance:
            holds = [h for h in (*self.open, *self.recorded.values()) if h.workspace_id == workspace]
            assert self.reader.held(workspace) == sum(hold.microdollars for hold in holds)


def run(examples: int, steps: int, *, nth: int = 0) -> None:
    """Run the machine from a printed seed, or from the nth after TAXIMETER_SEED."""
    given = int(os.environ.get("TAXIMETER_SEED", "0"))
    seed = given + nth if given else random.SystemRandom().randrange(1, 10**9)
    print(f"TAXIMETER_SEED={seed}")
    ways = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(hypothesis.seed(seed)(Model), settings=ways)
    print(COUNT)


@pytest.fixture
def servers(shared_valkey: Any, postgres: Postgres) -> Iterator[Callable[[], None]]:
    """Set the servers that the machines of this test use."""
    COUNT.update(steps=0, granted=0, short=0)
    SERVERS.update(postgres=postgres, valkey=shared_valkey)
    yield lambda: None
    SERVERS.clear()


@pytest.mark.usefixtures("servers")
def test_the_overdraft_is_bounded_whatever_happens():
    while COUNT["steps"] <= 150 or COUNT["granted"] <= 10:  # whatever the seed makes of the balances
        run(examples=5, steps=50, nth=COUNT["steps"])


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.usefixtures("servers")
def test_the_overdraft_is_bounded_for_twenty_thousand_steps():
    """`STEPS` in the environment says how many others."""
    wanted = int(os.environ.get("STEPS") or 20_000)
    while COUNT["steps"] < wanted:
        run(examples=20, steps=100, nth=COUNT["steps"])
