"""Anything in any order: after every step the real system says what a book kept by hand says.

Real PostgreSQL, the worker's own decoding, pricing, booking and flag writing, and a real Valkey. Steps are messages with
usages, payments, repeats and conflicts, price changes (new, back-dated, corrected, policies), limits set by command and on the
page, lost flags, restarts of everything that books, and replays, corrections and dismissals.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from cloud_events import cloud_event
from model.reference_system import LOW, MINIMUM, PER, ReferenceSystem
from servers.databases import drop_database, make_database, migrated_template
from taximeter import names
from taximeter_cli.embedded.postgres import Postgres
from taximeter_cli.embedded.valkey import FLAG_DATABASE
from taximeter_db import quarantine, workspaces
from taximeter_db.audit.verify import verify
from taximeter_db.connect import booking_connection
from taximeter_db.errors import SettingsError
from taximeter_db.money import format_usd, from_numeric_text
from taximeter_db.prices.changes import set_price
from taximeter_db.prices.store import Price, Target
from taximeter_db.quarantine import Attempt
from taximeter_worker.background.flag_watch import FlagWatch
from taximeter_worker.background.price_watch import PriceWatch
from taximeter_worker.consume.batch import Booker, Prices
from taximeter_worker.consume.brokers.source import Message
from taximeter_worker.flags import writer as flags
from taximeter_worker.flags.writer import FlagWriter
from taximeter_worker.metrics import Metrics
from taximeter_worker.settings import Settings
from taximeter_worker.tasks.corrections import corrected
from taximeter_worker.tasks.replay import replay, replay_waiting

SOAK_STEPS = 10_000
SERVERS: dict[str, Any] = {}
"""The servers of the run; hypothesis makes its machines without arguments."""
COUNT = {"steps": 0, "examples": 0}

WORKSPACES = st.sampled_from(["acme", "beta:1", "c"])
IDS = st.sampled_from(["1", "2", "3", "0199c7f2-6d0e-7a55-8f3c-000000000004", "0199c7f2-6d0e-7a55-8f3c-000000000005"])
DAYS = st.integers(1, 9)
USAGES = st.fixed_dictionaries(
    {
        "subject": WORKSPACES,
        "id": IDS,
        "day": DAYS,
        "tool": st.sampled_from(["chat", "scan"]),
        "model": st.sampled_from(["m", "m", "m", "later"]),
        "tokens": st.sampled_from([1, 1, 2, 500, 1500, 100_000, 0, -1]),
        "input": st.sampled_from([None, "\0", "é"]),
    }
)
PAYMENTS = st.fixed_dictionaries(
    {
        "subject": WORKSPACES,
        "id": IDS,
        "amount": st.sampled_from(["0.000000000001", "0.12", "1", "-0.12", "-1.000000000001", "25.5"]),
    }
)
PRICES = st.sampled_from([0, 1, 3, 500, 1_001, 120_000_000_000])
"""Picodollars for a thousand tokens: mostly such that rounding matters."""
LIMITS = st.sampled_from([-(10**12), MINIMUM, -1, LOW, 1, 10**12])


def usage(given: dict[str, Any]) -> bytes:
    data: dict[str, Any] = {"tool": given["tool"], "provider": "p", "model": given["model"]}
    data["quantities"] = {"input_tokens": given["tokens"]}
    if given["input"] is not None:
        data["input"] = given["input"]
    return _event(names.USAGE_TYPE, given, data)


def payment(given: dict[str, Any]) -> bytes:
    kind = "adjustment" if given["amount"].startswith("-") else "top_up"
    return _event(names.PAYMENT_TYPE, {**given, "day": 1}, {"amount": given["amount"], "kind": kind})


def _event(kind: str, given: dict[str, Any], data: dict[str, Any]) -> bytes:
    time = f"2024-01-{given['day']:02d}T12:00:00Z"
    return json.dumps(cloud_event(kind, data, workspace=given["subject"], event_id=given["id"], time=time)).encode()


EVENTS = st.lists(USAGES.map(usage) | PAYMENTS.map(payment), min_size=1, max_size=5)


@dataclass
class Worker:
    """Everything that books, and can be lost."""

    conn: Any
    booker: Booker
    prices: Prices
    writer: FlagWriter
    price_watch: PriceWatch

    @classmethod
    def start(cls, url: str, redis_url: str) -> Worker:
        metrics, prices, writer = Metrics(), Prices(), FlagWriter(redis_url, 5.0)
        known = Settings(database_url=url, broker_url="redis://none", redis_url=redis_url, metrics_port=0)
        booker = Booker(known, prices, writer, metrics)
        made = cls(booking_connection(url), booker, prices, writer, PriceWatch(prices, metrics, writer, lambda: None))
        made.price_watch(made.conn)
        return made

    def stop(self) -> None:
        with contextlib.suppress(Exception):
            self.conn.close()
        self.writer.close()


class System(RuleBasedStateMachine):
    """The system beside the book."""

    def __init__(self) -> None:
        super().__init__()
        COUNT["examples"] += 1
        postgres: Postgres = SERVERS["postgres"]
        self.database = make_database(postgres, migrated_template(postgres))
        self.url, self.redis_url = postgres.url(self.database), SERVERS["valkey"].url(FLAG_DATABASE)
        self.redis = redis.Redis.from_url(self.redis_url, decode_responses=True)
        self.redis.flushdb()
        self.worker = Worker.start(self.url, self.redis_url)
        self.book = ReferenceSystem()
        self.owed: set[str] = set()
        """Workspaces whose flag may be behind until the worker looks after the flags."""
        self.sent: list[bytes] = []
        self.look_after_flags()

    def teardown(self) -> None:
        try:
            report = verify(self.worker.conn)
            assert report.ok, [fault.sentence for fault in report.faults]
        finally:
            self.worker.stop()
            self.redis.close()
            drop_database(SERVERS["postgres"], self.database)

    # -- steps ------------------------------------------------------------------------------------------------------

    def _receive(self, events: list[bytes]) -> None:
        body = b"[" + b",".join(events) + b"]"
        message = Message(body, names.CONTENT_TYPE_BATCH, names.PAYMENT_QUEUE, 0.0, may_pay=True)
        self.worker.booker.book(self.worker.conn, self.worker.booker.decode([message]))
        self.owed -= self.book.receive(events)
        self.sent = [*self.sent, *events][-20:]

    @rule(events=EVENTS)
    def a_message(self, events: list[bytes]) -> None:
        self._receive(events)

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), fresh=EVENTS)
    def a_message_with_repeats(self, data: Any, fresh: list[bytes]) -> None:
        again = data.draw(st.lists(st.sampled_from(self.sent), min_size=1, max_size=3))
        self._receive(again + fresh[:1] + again[:1])

    @rule(model=st.sampled_from(["m", "m", "later"]), start=st.none() | DAYS, price=PRICES)
    def a_price(self, model: str, start: int | None, price: int) -> None:
        history = self.book.prices.of_model.setdefault(model, {})
        given = Price(
            target=Target(None, "p", model),
            unit="input_tokens",
            amount=Decimal(price).scaleb(-12),
            per=Decimal(PER),
        )
        since = None if start is None else datetime(2024, 1, start, tzinfo=UTC)
        with booking_connection(self.url) as conn:
            if start in history:
                set_price(conn, given, start=since, ever=since is None, backdated=True, correct=True)
            else:
                set_price(conn, given, start=since, ever=since is None, backdated=True)
        history[start] = price

    @rule(tool=st.sampled_from(["chat", "scan"]))
    def a_policy(self, tool: str) -> None:
        policy = Price(target=Target(tool, None, None), unit="@missing", amount=Decimal(0), charge="free")
        with booking_connection(self.url) as conn:
            set_price(conn, policy)
        self.book.prices.free_tools.add(tool)

    @rule()
    def the_worker_reads_the_prices(self) -> None:
        worker = self.worker
        worker.price_watch(worker.conn)
        self.book.learn_prices()
        assert worker.prices.book is not None
        replay_waiting(
            worker.conn,
            lambda states, holds: worker.booker.publish(worker.conn, states, holds),
            book=worker.prices.book,
        )

    @rule(workspace=WORKSPACES, minimum=LIMITS, low=LIMITS, on_the_page=st.booleans())
    def limits(self, workspace: str, minimum: int, low: int, on_the_page: bool) -> None:
        with booking_connection(self.url) as conn:
            if minimum > low:
                with pytest.raises(SettingsError):
                    workspaces.set_limits(conn, workspace, minimum=minimum, low=low)
                return
            state = workspaces.set_limits(conn, workspace, minimum=minimum, low=low)
            known = self.book.workspace(workspace)
            known.minimum, known.low = minimum, low
            if on_the_page:
                self.owed.add(workspace)
            else:
                flags.write_states(self.redis, [state])
                self.owed.discard(workspace)

    @rule()
    def the_flags_are_lost(self) -> None:
        self.redis.flushdb()
        self.owed = set(self.book.workspaces)

    @rule()
    def look_after_flags(self) -> None:
        FlagWatch(self.worker.writer, Metrics())(self.worker.conn)
        self.owed = set()

    @rule()
    def everything_restarts(self) -> None:
        self.worker.stop()
        self.worker = Worker.start(self.url, self.redis_url)
        self.book.known_prices = self.book.prices.copy()

    @precondition(lambda self: SERVERS.get("postgres_may_restart") and self.book.usages)
    @rule(dice=st.integers(0, 3))
    def postgresql_crashes(self, dice: int) -> None:
        if dice:
            return  # a second each, and nothing else happens meanwhile
        SERVERS["postgres"].stop("immediate")
        SERVERS["postgres"].start()
        self.everything_restarts()

    def _entry(self, data: Any) -> quarantine.Entry:
        entries = quarantine.find(self.worker.conn, limit=1_000)
        return entries[data.draw(st.integers(0, len(entries) - 1))]

    def _written(self, result: Any) -> str:
        flags.write_states(self.redis, result.states)
        self.owed -= {state.workspace_id for state in result.states}
        return str(result.result)

    @precondition(lambda self: self.book.open)
    @rule(data=st.data())
    def an_entry_is_replayed(self, data: Any) -> None:
        entry = self._entry(data)
        [result] = replay(self.worker.conn, [entry.id], Attempt("model"))
        assert self._written(result) == self.book.replay(entry.event)

    @precondition(lambda self: self.book.open)
    @rule(data=st.data(), tokens=st.sampled_from([-2, 7, 1500]), new_id=st.none() | IDS)
    def an_entry_is_corrected(self, data: Any, tokens: int, new_id: str | None) -> None:
        entry = self._entry(data)
        changes = [f"data.quantities.input_tokens={tokens}"] if entry.kind == "usage" else ["data.note=corrected"]
        fixed = corrected(entry.event, [*changes, *([f"id={new_id}"] if new_id else [])])
        [result] = replay(self.worker.conn, [entry.id], Attempt("model", correction=fixed))
        assert self._written(result) == self.book.replay(entry.event, fixed)
        assert quarantine.actions(self.worker.conn, entry.id)[-1].correction == fixed

    @precondition(lambda self: self.book.open)
    @rule(data=st.data())
    def an_entry_is_dismissed(self, data: Any) -> None:
        entry = self._entry(data)
        quarantine.dismiss(self.worker.conn, entry.id, by="model", note="by the model")
        del self.book.open[entry.event]

    # -- what must hold after every step ----------------------------------------------------------------------------

    @invariant()
    def the_database_says_what_the_book_says(self) -> None:
        COUNT["steps"] += 1
        rows = self.worker.conn.execute(
            "SELECT workspace_id, minimum_balance::text, low_balance_threshold::text, usage_cost::text, payment_total::text,"
            " usage_count, payment_count, duplicate_count, balance::text, status, ai_enabled FROM taximeter.workspaces"
            " JOIN (SELECT workspace_id AS id, status, ai_enabled FROM taximeter.workspace_balance) AS b ON id = workspace_id"
        ).fetchall()
        found = {
            row[0]: (*map(from_numeric_text, row[1:5]), *row[5:8], from_numeric_text(row[8]), *row[9:]) for row in rows
        }
        expected = {
            name: (w.minimum, w.low, w.cost, w.paid, w.usages, w.payments, w.duplicates, w.balance, w.status, w.enabled)
            for name, w in self.book.workspaces.items()
        }
        assert found == expected
        query = "SELECT event, reason FROM taximeter.quarantine WHERE resolved_at IS NULL ORDER BY id"
        assert dict(self.worker.conn.execute(query).fetchall()) == self.book.open

    @invariant()
    def the_flags_say_what_the_book_says(self) -> None:
        for name, workspace in self.book.workspaces.items():
            if name in self.owed:
                continue
            enabled = "1" if workspace.enabled else "0"
            assert self.redis.hmget(names.flag_key(name), "enabled", "status") == [enabled, workspace.status], name
            limits = [format_usd(workspace.balance), format_usd(workspace.minimum), format_usd(workspace.low)]
            assert self.redis.hmget(names.balance_key(name), "balance", "minimum", "low") == limits


def run(examples: int, steps: int) -> None:
    """Run the machine from a printed seed, or from TAXIMETER_SEED."""
    import hypothesis

    seed = int(os.environ.get("TAXIMETER_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
    print(f"TAXIMETER_SEED={seed}")
    machine = hypothesis.seed(seed)(System)
    ways = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # a failing run of some dozen steps tells enough; making it shorter takes minutes
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=ways)
    print(f"{COUNT['steps']:,} steps in {COUNT['examples']} systems so far")


@pytest.fixture
def servers(shared_valkey) -> Iterator[Callable[..., None]]:
    """Set the servers that the machines of this test use."""

    def use(postgres: Postgres, *, may_restart: bool = False) -> None:
        COUNT.update(steps=0, examples=0)
        SERVERS.update(postgres=postgres, valkey=shared_valkey, postgres_may_restart=may_restart)

    yield use
    SERVERS.clear()


def test_anything_in_any_order(servers, postgres: Postgres):
    servers(postgres)
    run(examples=5, steps=40)
    assert COUNT["steps"] > 100


@pytest.mark.soak
def test_ten_thousand_steps_and_postgresql_crashes_among_them(servers, own_postgres):
    servers(own_postgres(), may_restart=True)
    while COUNT["steps"] < SOAK_STEPS:
        run(examples=10, steps=100)
