"""Budgets in any order of steps: after each of them, what was spent is the sum of the log, and the flag says what is used up.

Real PostgreSQL and the real booking. Steps are batches with late, early and repeated usages, budgets set, changed and removed, time
that passes, and the task that ends periods. The reference keeps every usage and sums it up by Python's own calendar.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from factories import make_usage
from taximeter_db.audit import verify_budgets
from taximeter_db.budgets import periods, reading, setting, standing
from taximeter_db.budgets.terms import Terms
from taximeter_db.connect import booking_connection
from taximeter_db.ledger import booking
from taximeter_db.ledger.booking import read_states
from taximeter_db.ledger.columns import Labels
from taximeter_db.ledger.events import Usage

CONNECTION: dict[str, psycopg.Connection[Any]] = {}
"""Of the run; hypothesis makes its machines without arguments."""
NUMBERS = itertools.count(1)
SECOND = 1_000_000
DAY = 86_400 * SECOND
ZONES = ["UTC", "Europe/Berlin", "America/Havana", "Pacific/Chatham"]
NAMES = st.sampled_from(["a", "b", "c"])
WORDS = st.sampled_from([None, "x", "y"])
TAGS = st.sampled_from([None, {"team": "x"}, {"team": "y", "env": "x"}])
USAGES = st.fixed_dictionaries(
    {
        "cost": st.sampled_from([0, 1, 10, 30, 60, 100]),
        "offset": st.one_of(
            st.integers(-3_600, 300), st.integers(-40 * 86_400, 0), st.sampled_from([0, -1, -3_600, -86_400])
        ),
        "user_id": WORDS,
        "tool": st.sampled_from(["x", "y"]),
        "model": WORDS,
        "tags": TAGS,
    }
)
TERMS = st.fixed_dictionaries(
    {
        "limit": st.sampled_from([0, 50, 100, 200]),
        "period": st.sampled_from(
            [("day", 0), ("week", 0), ("month", 0), ("total", 0), ("hours", 1), ("hours", 24), ("hours", 25)]
        ),
        "zone": st.sampled_from(ZONES),
        "user": WORDS,
        "tool": WORDS,
        "model": WORDS,
        "tag": st.sampled_from([None, None, ("team", "x"), ("env", "x")]),
        "hard": st.booleans(),
    }
)


def counts(terms: Terms, usage: Usage) -> bool:
    labels = usage.labels or Labels()
    tags = labels.tags or {}
    pairs = [(terms.user, labels.user_id), (terms.tool, usage.tool), (terms.model, usage.model)]
    return all(wanted in {None, given} for wanted, given in pairs) and (
        terms.tag is None or tags.get(terms.tag[0]) == terms.tag[1]
    )


def is_in(terms: Terms, moment: int, at: int) -> bool:
    """Whether what happened at a moment is in the period that another lies in."""
    if terms.period == "total":
        return True
    if terms.period == "hours":
        size = (60 if terms.hours <= 24 else 900) * SECOND
        return at // size >= (moment - terms.hours * 3_600 * SECOND) // size
    dates = [dt.datetime.fromtimestamp(at // SECOND, ZoneInfo(terms.zone)).date() for at in (moment, at)]
    if terms.period == "week":
        return dates[0].isocalendar()[:2] == dates[1].isocalendar()[:2]
    return dates[0] == dates[1] if terms.period == "day" else dates[0].timetuple()[:2] == dates[1].timetuple()[:2]


class BudgetsMachine(RuleBasedStateMachine):
    """The real ledger beside a list of usages."""

    def __init__(self) -> None:
        super().__init__()
        self.conn = CONNECTION["booking"]
        self.workspace = f"w{next(NUMBERS)}"
        self.usages: list[Usage] = []
        self.budgets: dict[str, Terms] = {}
        booking.book(self.conn, [self._usage({"cost": 0, "offset": 0, "tool": "x"})])
        # The workspace's time never runs back, so from now on it is the machine's.
        self.now = 0
        self._pass(DAY)

    def _usage(self, given: dict[str, Any]) -> Usage:
        now = getattr(self, "now", 0) or self._server_now()
        values = {key: value for key, value in given.items() if key != "offset"}
        usage = make_usage(self.workspace, occurred_at=now + given["offset"] * SECOND, **values)
        self.usages.append(usage)
        return usage

    def _server_now(self) -> int:
        row = self.conn.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").fetchone()
        return int(row[0])

    def _pass(self, microseconds: int) -> None:
        self.now = (self.now or self._server_now()) + microseconds
        self.conn.execute(
            "UPDATE taximeter.workspaces SET updated_at = to_timestamp(0) + %s * interval '1 microsecond' WHERE workspace_id = %s",
            [self.now, self.workspace],
        )

    def _moved(self) -> None:
        """A change took its own time from the workspace's."""
        row = self.conn.execute(
            "SELECT (extract(epoch FROM updated_at) * 1000000)::bigint FROM taximeter.workspaces WHERE workspace_id = %s",
            [self.workspace],
        ).fetchone()
        self.now = int(row[0])

    @rule(batch=st.lists(USAGES, min_size=1, max_size=5))
    def book(self, batch):
        booking.book(self.conn, [self._usage(given) for given in batch])
        self._moved()

    @rule()
    def book_again(self):
        booking.book(self.conn, self.usages[-3:])
        self._moved()

    @rule(name=NAMES, given=TERMS)
    def set_budget(self, name, given):
        period, hours = given["period"]
        terms = Terms(self.workspace, name, **{**given, "period": period, "hours": hours})
        setting.set_budget(self.conn, terms)
        self.budgets[name] = terms
        self._moved()

    @rule(name=NAMES)
    def remove(self, name):
        if self.budgets.pop(name, None) is not None:
            setting.remove(self.conn, self.workspace, name)
            self._moved()

    @rule(seconds=st.sampled_from([1, 59, 60, 901, 3_600, 3_601, 25 * 3_600, 86_400, 8 * 86_400]))
    def pass_time(self, seconds):
        self._pass(seconds * SECOND)

    @rule()
    def end_periods(self):
        list(periods.end_periods(self.conn, standing.time_of(self.now)))
        self._moved()
        used_up = {name for name, terms in self.budgets.items() if terms.hard and self._spent(terms) >= terms.limit}
        (state,) = read_states(self.conn, [self.workspace])
        assert {budget["name"] for budget in json.loads(state.budgets or "[]")} == used_up

    def _spent(self, terms: Terms) -> int:
        return sum(
            usage.cost for usage in self.usages if counts(terms, usage) and is_in(terms, self.now, usage.occurred_at)
        )

    @invariant()
    def what_was_spent_is_the_sum_of_the_log(self):
        keys = [(self.workspace, name) for name in self.budgets]
        found = {known.name: known.spent for known in standing.read(self.conn, keys, {self.workspace: self.now})}
        assert found == {name: self._spent(terms) for name, terms in self.budgets.items()}

    def teardown(self) -> None:
        self.end_periods()
        rows = reading.crossings(self.conn, self.workspace, limit=10_000)[::-1]
        for name in {row.name for row in rows}:
            kinds = [row.kind for row in rows if row.name == name and row.kind != "warned"]
            assert all(one != other for one, other in itertools.pairwise(kinds)), (name, kinds)
        faults = verify_budgets.counters(self.conn, ())
        assert [fault for fault in faults if fault.workspace_id == self.workspace] == []


@pytest.fixture
def connection(database_url: str) -> Iterator[None]:
    with booking_connection(database_url) as conn:
        CONNECTION["booking"] = conn
        yield
    CONNECTION.clear()


def run(examples: int, steps: int) -> None:
    ways = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(BudgetsMachine, settings=ways)


@pytest.mark.usefixtures("connection")
def test_budgets_are_the_sum_of_the_log_after_any_steps():
    run(examples=15, steps=30)


@pytest.mark.soak
@pytest.mark.usefixtures("connection")
def test_budgets_are_the_sum_of_the_log_for_long():
    run(examples=300, steps=80)
