"""A hard budget that is used up reaches the tools, by its own field of the flag, whatever becomes of Redis."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import redis

from factories import make_payment, make_usage
from taximeter import AIDisabled, BudgetExceeded, Meter, names
from taximeter.testing import MemoryMeter
from taximeter_db import flag_debts
from taximeter_db.budgets import setting
from taximeter_db.budgets.terms import Terms
from taximeter_db.connect import booking_connection
from taximeter_db.ledger import booking
from taximeter_db.ledger.booking import read_states
from taximeter_db.ledger.context import BookingContext
from taximeter_worker.background.flag_audit import FlagAudit
from taximeter_worker.background.flag_watch import FlagWatch
from taximeter_worker.flags.publisher import FlagPublisher
from taximeter_worker.flags.writer import FlagWriter, write_states
from taximeter_worker.metrics import Metrics
from waiting import eventually
from workers import Feed, payment, usage

USD = 10**12
Conn = psycopg.Connection[Any]


@pytest.fixture
def conn(priced_url: str) -> Iterator[Conn]:
    with booking_connection(priced_url) as connection:
        yield connection


@pytest.fixture
def writer(redis_url: str) -> Iterator[FlagWriter]:
    made = FlagWriter(redis_url, 5.0)
    yield made
    made.close()


@pytest.fixture
def watch(conn: Conn, writer: FlagWriter) -> Callable[[], None]:
    """One round of the flag watch: it rebuilds a cold cache and pays debts."""
    round_of = FlagWatch(writer, Metrics())
    return lambda: round_of(conn)


@pytest.fixture
def meter(redis_url: str) -> Iterator[Meter]:
    with Meter(redis_url=redis_url, timeout_seconds=5.0) as made:
        yield made


def used_up(client: redis.Redis, workspace: str = "acme") -> list[dict[str, Any]]:
    return json.loads(client.hget(names.flag_key(workspace), "budgets") or "[]")


def set_budget(conn: Conn, name: str = "b", limit: int = 0, **more: Any) -> None:
    setting.set_budget(conn, Terms("acme", name, limit, "total", **more))


def test_a_budget_that_is_used_up_refuses_the_calls_that_it_concerns(conn, watch, meter, redis_client):
    set_budget(conn, user="u-17", tool="chat")
    watch()
    assert used_up(redis_client) == [{"name": "b", "limit": "0", "period": "total", "user": "u-17", "tool": "chat"}]
    assert not meter.enabled("acme", user="u-17", tool="chat")
    for caller in ({}, {"user": "u-17"}, {"user": "u-18", "tool": "chat"}, {"tool": "chat", "model": "m"}):
        assert meter.enabled("acme", **caller), caller
    assert meter.status("acme").enabled
    with pytest.raises(BudgetExceeded, match="budget b of workspace acme") as refused:
        meter.hold("acme", max_cost="0.01", user="u-17", tool="chat")
    assert (refused.value.budget, refused.value.workspace) == ("b", "acme")
    meter.hold("acme", max_cost="0.01", user="u-18", tool="chat").release()
    set_budget(conn, name="by tag", tag=("team", "search"), limit=0)
    set_budget(conn, name="by model", model="m", limit=0)
    watch()
    eventually(lambda: not meter.enabled("acme", tags={"team": "search"}))
    assert not meter.enabled("acme", model="m")
    assert meter.enabled("acme", model="n", tags={"team": "sales"})


def test_a_budget_without_conditions_refuses_everything(conn, watch, meter):
    watch()
    assert meter.enabled("acme")
    set_budget(conn)
    watch()
    eventually(lambda: not meter.enabled("acme"))
    assert not meter.status("acme").enabled
    assert meter.status("acme").status == "sufficient"
    setting.remove(conn, "acme", "b")
    watch()
    eventually(lambda: meter.enabled("acme"))


@pytest.mark.parametrize("kind", ["track", "wrap"])
def test_calls_that_are_followed_are_refused_before_they_are_made(kind: str):
    meter = MemoryMeter(source="/tests")
    meter.use_up_budget("acme", "b", user="u-17", model="m")

    def call(user: str, model: str) -> None:
        with meter.track("acme", tool="chat", user=user, model=model) as running:
            running.add(requests=1)

    if kind == "wrap":
        from taximeter.calls.call import begin

        def call(user: str, model: str) -> None:
            begin(meter, attribution=meter.attribution("acme", tool="chat", user=user), model=model).end()

    with pytest.raises(BudgetExceeded) as refused:
        call("u-17", "m")
    assert refused.value.budget == "b"
    assert meter.usages == []
    call("u-18", "m")
    call("u-17", "n")
    assert len(meter.usages) == 2
    meter.set_status("acme", "insufficient")
    with pytest.raises(AIDisabled):
        call("u-17", "m")


def test_an_older_writer_neither_brings_a_budget_back_nor_takes_it_away(conn, redis_client):
    set_budget(conn)
    (refusing,) = read_states(conn, ["acme"])
    setting.remove(conn, "acme", "b")
    (lifted,) = read_states(conn, ["acme"])
    write_states(redis_client, [refusing])
    assert len(used_up(redis_client)) == 1
    redis_client.flushall()
    for state in (lifted, refusing):
        write_states(redis_client, [state])
        assert used_up(redis_client) == []
    set_budget(conn)
    (again,) = read_states(conn, ["acme"])
    assert again.budgets == refusing.budgets
    redis_client.flushall()
    for state in (refusing, again, lifted):  # the newest says what the oldest said
        write_states(redis_client, [state])
        assert len(used_up(redis_client)) == 1


def test_a_newer_balance_does_not_hide_a_budget_that_was_used_up_before_it(conn, redis_client):
    """Most writers say nothing of budgets: the text is ordered by itself."""
    set_budget(conn)
    (refusing,) = read_states(conn, ["acme"])
    newer = booking.book(conn, [], [make_payment("acme")]).states["acme"]
    assert newer.budgets is None
    write_states(redis_client, [newer])
    assert used_up(redis_client) == []
    write_states(redis_client, [refusing])
    assert len(used_up(redis_client)) == 1


def test_a_lost_redis_gets_the_budgets_with_the_flags(conn, watch, meter, redis_client):
    set_budget(conn)
    watch()
    redis_client.flushall()
    watch()
    assert len(used_up(redis_client)) == 1
    eventually(lambda: not meter.enabled("acme"))


def test_the_audit_finds_a_budget_that_somebody_changed(conn, watch, writer, redis_client):
    set_budget(conn)
    watch()
    audit = FlagAudit(writer, Metrics())
    audit._after = ""
    for stored in ("", "[]", '[{"name":"other"}]'):
        redis_client.hset(names.flag_key("acme"), "budgets", stored)
        audit(conn)
        audit._after = ""
        audit(conn)
        audit._after = ""
        assert [budget["name"] for budget in used_up(redis_client)] == ["b"]


def test_a_flag_whose_budgets_cannot_be_read_is_not_taken_for_leave(conn, watch, meter, redis_client):
    set_budget(conn, user="u")
    watch()
    assert meter.enabled("acme")
    redis_client.hset(names.flag_key("beta"), mapping={"enabled": "1", "status": "sufficient", "budgets": "{"})
    assert not meter.enabled("beta")


def test_nearly_full_redis_takes_the_flag_of_a_used_up_budget(conn, redis_client):
    set_budget(conn)
    (state,) = read_states(conn, ["acme"])
    assert write_states(redis_client, [state], sparse=True).left_out == 0
    assert len(used_up(redis_client)) == 1


def test_usage_disables_its_user_and_nobody_else(new_runtime, broker_url, feed: Feed, conn: Conn, meter, redis_client):
    """A worker as it runs: from the message to the answer of a tool."""
    new_runtime(broker_url)
    feed.pay(payment("acme", "5"))
    eventually(lambda: redis_client.exists(names.FLAGS_READY) and redis_client.exists(names.balance_key("acme")))
    set_budget(conn, limit=USD // 100, user="u-17")
    event = usage("acme")
    feed.send(event | {"data": event["data"] | {"user": "u-17", "quantities": {"input_tokens": 1_000_000}}})
    eventually(lambda: not meter.enabled("acme", user="u-17"))
    assert meter.enabled("acme", user="u-18")
    assert meter.enabled("acme")
    eventually(lambda: flag_debts.owed(conn) == [], what="the debt of the flag is settled")
    setting.set_budget(conn, Terms("acme", "b", 1_000 * USD, "total", user="u-17"))
    eventually(lambda: meter.enabled("acme", user="u-17"))


def test_a_publisher_that_dies_before_the_flag_leaves_the_debt(conn, watch, redis_client, monkeypatch):
    set_budget(conn, limit=100)
    watch()
    booking.book(conn, [make_usage("acme", cost=100)], context=BookingContext(owe_flags=False))
    assert used_up(redis_client) == []
    watch()
    assert len(used_up(redis_client)) == 1


def test_the_end_of_a_period_reaches_the_tools(conn, writer, watch, meter, redis_client):
    from taximeter_worker.tasks.budget_periods import end_periods

    setting.set_budget(conn, Terms("acme", "b", 0, "day"))
    watch()
    assert not meter.enabled("acme")
    assert end_periods(conn, FlagPublisher(writer, Metrics())) == 0
    setting.set_budget(conn, Terms("acme", "b", 10, "day"))
    booking.book(conn, [make_usage("acme", cost=10)])
    watch()
    eventually(lambda: not meter.enabled("acme"))
    # A day that began a day ago has ended.
    conn.execute(
        "UPDATE taximeter.budgets SET due_at = due_at - interval '1 day', window_start = window_start - interval '1 day'"
    )
    conn.execute("UPDATE taximeter.budget_spending SET bucket = bucket - interval '1 day'")
    assert end_periods(conn, FlagPublisher(writer, Metrics())) == 1
    eventually(lambda: meter.enabled("acme"))
    assert flag_debts.owed(conn) == []
