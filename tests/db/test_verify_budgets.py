"""Counters of budgets that are not the sum of the log: verify names them."""

from __future__ import annotations

from typing import Any

import pytest

from taximeter_db import connect
from taximeter_db.audit.verify import verify
from taximeter_db.budgets import setting
from taximeter_db.budgets.terms import Terms, parse_period
from taximeter_db.ledger import booking

USD = 10**12
PERIODS = ("day", "week", "month", "hours:3", "hours:100", "total")


def terms(name: str, period: str, **more: Any) -> Terms:
    period, hours = parse_period(period)
    return Terms(more.pop("workspace_id", "acme"), name, 10 * USD, period, hours, **more)


@pytest.fixture
def booked(conn, usage):
    """Budgets of every period and condition, set before their usages and after some of them."""
    booking.book(conn, [usage(cost="0.25", user_id="u-17", tags={"team": "search", "x": "y"}) for _ in range(3)])
    for period in PERIODS:
        setting.set_budget(conn, terms(f"all {period}", period, zone="Europe/Berlin"))
        setting.set_budget(conn, terms(f"some {period}", period, user="u-17", tool="clip", tag=("team", "search")))
    setting.set_budget(conn, terms("other", "total", workspace_id="beta", tag=("team", "search")))
    booking.book(
        conn,
        [
            usage(cost="0.5", user_id="u-17", tool="clip", tags={"team": "search"}),
            usage(cost="0.125", user_id="u-17", tool="clip"),
            usage("beta", cost="1", tags={"team": "search"}),
            usage("beta", cost="0"),
            usage("gamma", cost="1"),
        ],
    )
    return conn


@pytest.fixture
def owner(database_url: str):
    with connect.connection(database_url) as connection:
        yield connection


def faults(conn) -> list[tuple[str, str, str | None, str | None, str | None]]:
    found = verify(conn).faults
    return [(fault.workspace_id, fault.kind, fault.field, fault.stored, fault.computed) for fault in found]


def test_counters_that_are_right_are_no_fault(booked, owner):
    assert faults(owner) == []


@pytest.mark.parametrize("period", PERIODS)
def test_a_wrong_counter_is_found_and_counted_again(booked, owner, period):
    name = f"all {period}"
    wrong = "UPDATE taximeter.budget_spending SET cost = cost + 0.000000000001 WHERE name = %s"
    assert owner.execute(wrong, [name]).rowcount == 1
    (found,) = verify(owner).faults
    assert (found.workspace_id, found.kind, found.field) == ("acme", "budget", name)
    assert (found.stored, found.computed) == ("1.375000000001 USD of 5 usages", "1.375 USD of 5 usages")
    assert found.sentence.startswith(f"acme: budget {name} counts 1.375000000001 USD of 5 usages from ")
    setting.set_budget(booked, terms(name, period, zone="Europe/Berlin"))
    assert faults(owner) == []


def test_counters_that_are_gone_or_of_nothing_are_found(booked, owner):
    owner.execute("DELETE FROM taximeter.budget_spending WHERE workspace_id = 'beta'")
    owner.execute(
        "INSERT INTO taximeter.budget_spending VALUES ('acme', 'some total', now() + interval '1 hour', 3, 1)"
    )
    owner.execute("UPDATE taximeter.budget_spending SET usages = 7 WHERE name = 'some day'")
    assert faults(owner) == [
        ("acme", "budget", "some day", "0.5 USD of 7 usages", "0.5 USD of 1 usage"),
        ("acme", "budget", "some total", "3 USD of 1 usage", "0 USD of 0 usages"),
        ("beta", "budget", "other", "0 USD of 0 usages", "1 USD of 1 usage"),
    ]


def test_a_log_that_is_wrong_itself_explains_its_counters(booked, owner):
    owner.execute("ALTER TABLE taximeter.usages DISABLE TRIGGER USER")
    owner.execute("UPDATE taximeter.usages SET cost = cost + 1 WHERE workspace_id = 'beta' AND seq = 1")
    found = faults(owner)
    assert found
    assert all(kind != "budget" for _, kind, *_ in found)
