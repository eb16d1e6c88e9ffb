"""A rebuild as of a moment is what was at that moment: a story is booked, and what the ledger shows is written down as it goes."""

from __future__ import annotations

import datetime as dt
import json
import random
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from cloud_events import cloud_event, now_text
from factories import make_payment, make_usage
from taximeter import names
from taximeter_db import connect, money, workspaces
from taximeter_db.audit import rebuild as audit
from taximeter_db.audit.rebuild import Rebuilt, rebuild
from taximeter_db.crypto import erasure
from taximeter_db.errors import RebuildError
from taximeter_db.ledger import booking
from taximeter_db.prices.changes import set_price
from taximeter_db.prices.store import Price, Target
from taximeter_worker.consume.batch import price
from taximeter_worker.decode.message import decode_message
from taximeter_worker.pricing.loading import load_book
from taximeter_worker.tasks.recost import Selection
from taximeter_worker.tasks.reprice import Repricing, post

NAMES = ("acme", "blue", "coal", "dune", "east")
State = dict[str, tuple[Any, ...]]
VIEW = """SELECT workspace_id, balance, minimum_balance, low_balance_threshold, status, ai_enabled, usage_count, usage_cost,
                 payment_total FROM taximeter.workspace_balance"""
MADE = """SELECT workspace_id, balance, minimum_balance, low_balance_threshold, status, ai_enabled, usage_count, usage_cost,
                 payment_total FROM {}.balances"""


@pytest.fixture
def owner(database_url: str) -> Iterator[Connection[Any]]:
    with connect.connection(database_url) as connection:
        yield connection


def shown(conn: Connection[Any]) -> State:
    return {row[0]: row[1:] for row in conn.execute(VIEW)}


def made(conn: Connection[Any], as_of: dt.datetime | None) -> tuple[State, Rebuilt]:
    rebuilt = rebuild(conn, as_of, keep="kept")
    state = {row[0]: row[1:] for row in conn.execute(MADE.format("kept"))}
    conn.execute("DROP SCHEMA kept CASCADE")
    return state, rebuilt


class Story:
    """Steps of every kind, in any order, with the moments after them."""

    def __init__(self, conn: Connection[Any], seed: int) -> None:
        self.conn = conn
        self.dice = random.Random(seed)
        self.moments: list[tuple[dt.datetime, State]] = []
        self.amount = 1
        self.number = 0
        self._set_price()

    def note(self) -> None:
        """Write down what the ledger shows now."""
        (clock,) = self.conn.execute("SELECT clock_timestamp()").fetchone()  # type: ignore[misc]
        self.moments.append((clock, shown(self.conn)))

    def step(self) -> None:
        """One step, the likelier ones more often."""
        self.dice.choice([self.use] * 6 + [self.pay] * 3 + [self.limit, self.limit_by_sql, self.erase, self.reprice])()

    def use(self) -> None:
        events = [self._event() for _ in range(self.dice.randint(1, 6))]
        decoded = decode_message(json.dumps(events).encode(), names.CONTENT_TYPE_BATCH, now=time.time_ns() // 1_000)
        assert not decoded.rejected
        booking.book(self.conn, price(load_book(self.conn), decoded.usages, []), [])

    def pay(self) -> None:
        whose = self.dice.sample(NAMES, self.dice.randint(1, 3))
        kinds = [("top_up", 1), ("promo", 1), ("refund", 1), ("reinstated", 1), ("adjustment", 1), ("adjustment", -1)]
        kinds += [("clawback", -1), ("clawback", -1), ("expiry", -1)]
        payments = []
        for workspace_id in whose:
            kind, sign = self.dice.choice(kinds)
            payments.append(make_payment(workspace_id, sign * self.dice.randint(1, 30 * 10**12), kind=kind))
        booking.book(self.conn, [], payments)

    def limit(self) -> None:
        """Around the balance, so that every status comes about."""
        workspace_id = self.dice.choice(NAMES)
        balance = money.to_pico(shown(self.conn).get(workspace_id, (Decimal(0),))[0])
        minimum = balance + self.dice.randint(-9 * 10**12, 2 * 10**12)
        low = minimum + self.dice.randint(0, 20 * 10**12)
        workspaces.set_limits(self.conn, workspace_id, minimum=minimum, low=low, by="ada")

    def limit_by_sql(self) -> None:
        self.conn.execute(
            "UPDATE taximeter.workspaces SET minimum_balance = minimum_balance - %s WHERE workspace_id = ANY(%s)",
            [Decimal(self.dice.randint(1, 9)) / 10, list(self.dice.sample(NAMES, 2))],
        )

    def erase(self) -> None:
        known = list(shown(self.conn))
        if known:
            erasure.erase(self.conn, self.dice.choice(known), by="olga")

    def reprice(self) -> None:
        self.amount += 1
        self._set_price(correct=True)
        start = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
        for _ in post(self.conn, Repricing(Selection(start), "wrong", "ada"), load_book(self.conn), publish=len):
            self.note()  # in the middle of it, too

    def _set_price(self, correct: bool = False) -> None:
        start = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0) - dt.timedelta(days=2)
        amount = Price(target=Target(None, "openai", "gpt-4o"), unit="input_tokens", amount=Decimal(self.amount))
        set_price(self.conn, amount, start=start, backdated=not correct, correct=correct)

    def _event(self) -> dict[str, Any]:
        self.number += 1
        data = {
            "tool": self.dice.choice(["chat", "mail"]),
            "provider": "openai",
            "model": "gpt-4o",
            "quantities": {"input_tokens": self.dice.randint(0, 3)},
            "input": "asked",
        }
        event_id = str(self.number if self.dice.random() < 0.9 else max(1, self.number - 1))
        made: dict[str, Any] = cloud_event(
            names.USAGE_TYPE, data, workspace=self.dice.choice(NAMES), event_id=event_id, time=now_text()
        )
        return made


def _holds(conn: Connection[Any], owner: Connection[Any], seed: int, moments: int) -> None:
    story = Story(conn, seed)
    story.note()
    while len(story.moments) < moments:
        story.step()
        if story.dice.random() < 0.8:
            story.note()
    kinds = {kind for (kind,) in conn.execute("SELECT DISTINCT kind FROM taximeter.payments")}
    assert {"clawback", "adjustment", "top_up"} <= kinds
    assert conn.execute("SELECT count(*) > 0 FROM taximeter.repriced_usages").fetchone() == (True,)
    assert conn.execute("SELECT count(*) > 0 FROM taximeter.payload_erasures").fetchone() == (True,)
    statuses = set()
    for moment, was in story.moments:
        state, rebuilt = made(owner, moment)
        assert rebuilt.differences == ()
        assert state == was
        statuses |= {row[3] for row in state.values()}
        assert rebuilt.usages == sum(row[5] for row in was.values())
        assert rebuilt.balance == sum(money.to_pico(row[0]) for row in was.values())
    assert statuses == {"sufficient", "low", "insufficient"}
    state, rebuilt = made(owner, None)
    assert rebuilt.ok
    assert state == shown(conn)


def test_a_hundred_moments_are_as_they_were(conn: Connection[Any], owner: Connection[Any]) -> None:
    _holds(conn, owner, seed=7, moments=100)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
def test_a_thousand_moments_are_as_they_were(conn: Connection[Any], owner: Connection[Any], seed: int) -> None:
    _holds(conn, owner, seed, moments=1_000)


@pytest.fixture
def booked(conn: Connection[Any]) -> Connection[Any]:
    booking.book(conn, [], [make_payment("a", "5"), make_payment("b", "5")])
    booking.book(conn, [make_usage(name, cost="1") for name in "aabbc"])
    workspaces.set_limits(conn, "b", minimum=money.to_pico(Decimal(-3)), low=money.to_pico(Decimal(1)), by="ada")
    booking.book(conn, [], [make_payment("a", "-2", kind="clawback")])
    booking.book(conn, [make_usage("a", cost="1")])
    parts = conn.execute(
        """SELECT relid::text FROM pg_partition_tree('taximeter.usages') UNION ALL VALUES
           ('taximeter.payments'), ('taximeter.workspaces'), ('taximeter.status_changes'), ('taximeter.workspace_changes')"""
    )
    for (name,) in parts.fetchall():
        conn.execute(f"ALTER TABLE {name} DISABLE TRIGGER USER")
    return conn


@pytest.mark.parametrize(
    ("tampering", "found"),
    [
        (
            "UPDATE taximeter.usages SET cost = 2 WHERE workspace_id = 'a' AND seq = 2",
            ("a", "running", None, "3", "2", 3),
        ),
        (
            "UPDATE taximeter.usages SET balance_after = 9 WHERE workspace_id = 'a' AND seq = 1",
            ("a", "running", None, "9", "4", 2),
        ),
        ("DELETE FROM taximeter.usages WHERE workspace_id = 'b' AND seq = 1", ("b", "gap", None, "3", "2", 2)),
        ("DELETE FROM taximeter.payments WHERE workspace_id = 'b'", ("b", "gap", None, "3", "2", 1)),
        ("UPDATE taximeter.usages SET entry = 2 WHERE workspace_id = 'b' AND seq = 2", ("b", "gap", None, "2", "3", 3)),
        ("DELETE FROM taximeter.workspaces WHERE workspace_id = 'c'", ("c", "orphan", None, None, None, None)),
        (
            "UPDATE taximeter.status_changes SET status_after = 'low' WHERE workspace_id = 'c'",
            ("c", "status", None, "low", "insufficient", None),
        ),
        (
            "UPDATE taximeter.workspaces SET balance = balance + 1, payment_total = payment_total + 1 WHERE workspace_id = 'b'",
            ("b", "table", "balance", "4", "3", None),
        ),
        (
            "UPDATE taximeter.workspaces SET usage_count = 9 WHERE workspace_id = 'c'",
            ("c", "table", "usage_count", "9", "1", None),
        ),
        (
            "UPDATE taximeter.workspaces SET minimum_balance = -9 WHERE workspace_id = 'b'",
            ("b", "table", "minimum", "-9", "-3", None),
        ),
    ],
)
def test_a_planted_wrong_row_is_found_and_named(
    booked: Connection[Any], owner: Connection[Any], tampering: str, found: tuple[Any, ...]
) -> None:
    assert rebuild(owner).ok
    booked.execute(tampering)
    first = rebuild(owner).differences[0]
    assert (first.workspace_id, first.kind, first.field, first.stored, first.computed, first.entry) == found
    assert first.sentence.startswith(found[0])


def test_a_fault_that_came_later_is_none_of_the_moment_before(booked: Connection[Any], owner: Connection[Any]) -> None:
    (moment,) = booked.execute("SELECT max(recorded_at) FROM taximeter.payments WHERE workspace_id = 'a'").fetchone()  # type: ignore[misc]
    booked.execute("UPDATE taximeter.usages SET cost = 7 WHERE workspace_id = 'a' AND seq = 3")
    assert rebuild(owner, moment).ok
    assert [(one.kind, one.entry) for one in rebuild(owner).differences if one.kind == "running"] == [("running", 5)]


def test_a_change_of_limits_holds_from_its_change_of_status_on(booked: Connection[Any], owner: Connection[Any]) -> None:
    # a statement that changes many workspaces logs their limits at its end, after the first rows were changed
    workspaces.set_limits(booked, "b", minimum=money.to_pico(Decimal(4)), low=money.to_pico(Decimal(9)), by="ada")
    (changed,) = booked.execute(  # type: ignore[misc]
        "SELECT max(changed_at) FROM taximeter.status_changes WHERE workspace_id = 'b' AND cause = 'settings'"
    ).fetchone()
    booked.execute(
        "UPDATE taximeter.workspace_changes SET changed_at = clock_timestamp()"
        " WHERE workspace_id = 'b' AND changed_at >= %s", [changed]
    )  # fmt: skip
    state, rebuilt = made(owner, changed)
    assert rebuilt.ok
    assert state["b"][1:4] == (Decimal(4), Decimal(9), "insufficient")
    state, rebuilt = made(owner, changed - dt.timedelta(microseconds=1))
    assert rebuilt.ok
    assert state["b"][1:4] == (Decimal(-3), Decimal(1), "sufficient")


def test_runs_of_blocks_read_each_row_once(
    conn: Connection[Any], owner: Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    booking.book(conn, [], [make_payment("a", "5")])
    for _ in range(5):
        booking.book(conn, [make_usage(name, cost="0.01") for name in ("a", "b") for _ in range(100)])
    monkeypatch.setattr(audit, "BLOCKS_AT_ONCE", 3)
    seen: list[tuple[int, int]] = []
    rebuilt = rebuild(owner, progress=lambda done, total: seen.append((done, total)))
    assert (rebuilt.ok, rebuilt.usages, rebuilt.payments, rebuilt.workspaces) == (True, 1_000, 1, 2)
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1] > 9
    assert len(seen) > 4


def _schemas(conn: Connection[Any]) -> set[str]:
    return {name for (name,) in conn.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'taximeter%'")}


def test_nothing_is_left_of_a_run_or_of_one_that_was_killed(booked: Connection[Any], owner: Connection[Any]) -> None:
    with connect.connection(owner.address.reveal()) as other:  # type: ignore[attr-defined]

        def kill(_done: int, _total: int) -> None:
            booked.execute("SELECT pg_terminate_backend(%s)", [other.info.backend_pid])

        with pytest.raises(psycopg.OperationalError):
            rebuild(other, keep="taximeter_killed", progress=kill)
    assert _schemas(owner) == {"taximeter"}
    assert rebuild(owner).ok
    assert _schemas(owner) == {"taximeter"}
    assert rebuild(owner, keep="taximeter_killed").schema == "taximeter_killed"
    assert owner.execute("SELECT count(*) FROM taximeter_killed.differences").fetchone() == (0,)
    with pytest.raises(RebuildError, match="DROP SCHEMA taximeter_killed"):
        rebuild(owner, keep="taximeter_killed")


def test_bookings_go_on_meanwhile_and_do_not_count(
    conn: Connection[Any], owner: Connection[Any], database_url: str
) -> None:
    booking.book(conn, [make_usage("a")], [])

    def book_more(_done: int, _total: int) -> None:
        booking.book(conn, [make_usage("a"), make_usage("new")], [])
        workspaces.set_limits(conn, "a", minimum=-5, low=0, by="ada")

    rebuilt = rebuild(owner, progress=book_more)
    assert (rebuilt.ok, rebuilt.usages, rebuilt.workspaces) == (True, 1, 1)
    assert rebuild(owner).usages > 1


def test_what_cannot_begin_says_why(
    booked: Connection[Any], owner: Connection[Any], role_url: Any, database_url: str
) -> None:
    with pytest.raises(RebuildError, match="lies ahead"):
        rebuild(owner, dt.datetime.now(dt.UTC) + dt.timedelta(hours=1))
    for name in ("pg_mine", "Upper", "", "a b", "a" * 64):
        with pytest.raises(RebuildError, match="cannot be the name"):
            rebuild(owner, keep=name)
    for login in ("worker", "dashboard"):
        with connect.connection(role_url(login)) as part, pytest.raises(psycopg.errors.InsufficientPrivilege):
            rebuild(part)
    owner.execute("SET default_transaction_read_only = on")
    with pytest.raises(RebuildError, match="takes no writes"):
        rebuild(owner)


def test_a_detached_partition_is_said(booked: Connection[Any], owner: Connection[Any]) -> None:
    (name,) = booked.execute("SELECT tableoid::regclass::text FROM taximeter.usages LIMIT 1").fetchone()  # type: ignore[misc]
    booked.execute(f"ALTER TABLE {name} RENAME TO elsewhere")
    booked.execute("ALTER TABLE taximeter.usages DETACH PARTITION taximeter.elsewhere")
    (one,) = rebuild(owner).differences
    assert one.kind == "detached"
    assert "attach its partitions" in one.sentence
