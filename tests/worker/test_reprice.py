"""A wrong price, found a day later: preview, adjustments, flags, a second run, and a run that is killed half-way."""

import datetime as dt
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import redis
from psycopg import Connection

from cloud_events import cloud_event
from taximeter import names
from taximeter_db.audit.verify import verify
from taximeter_db.budgets import reading, setting
from taximeter_db.budgets.terms import Terms
from taximeter_db.connect import booking_connection
from taximeter_db.ledger import booking
from taximeter_db.ledger.events import WorkspaceState
from taximeter_db.locks import AdvisoryLock
from taximeter_db.money import format_usd, numeric_text, to_pico
from taximeter_db.prices.changes import set_price
from taximeter_db.prices.store import Price, Target
from taximeter_worker.consume.batch import price
from taximeter_worker.decode.message import decode_message
from taximeter_worker.decode.result import Limits
from taximeter_worker.flags.writer import write_states
from taximeter_worker.pricing.compare import book_of
from taximeter_worker.pricing.loading import load_book
from taximeter_worker.tasks import reprice
from taximeter_worker.tasks.recost import Selection, booked_since, preview, simulate
from taximeter_worker.tasks.reprice import RepriceError, Repricing, post

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
DAY = NOW - dt.timedelta(days=1)
PER_MILLION = Decimal(1_000_000)


@pytest.fixture
def conn(database_url: str) -> Iterator[Connection[Any]]:
    with booking_connection(database_url) as conn:
        yield conn


def tokens(amount: str) -> Price:
    return Price(target=Target(None, "openai", "gpt-4o"), unit="input_tokens", amount=Decimal(amount), per=PER_MILLION)


def event(workspace: str, number: str, used: int, tool: str = "chat", hours: int = 10) -> dict[str, Any]:
    data = {"tool": tool, "provider": "openai", "model": "gpt-4o", "quantities": {"input_tokens": used}}
    return _envelope(workspace, number, names.USAGE_TYPE, data, hours)


def credit(workspace: str, number: str, amount: str, hours: int = 20) -> dict[str, Any]:
    return _envelope(workspace, number, names.PAYMENT_TYPE, {"amount": amount, "kind": "top_up"}, hours)


def _envelope(workspace: str, number: str, kind: str, data: dict[str, Any], hours: int) -> dict[str, Any]:
    time = (NOW - dt.timedelta(hours=hours)).isoformat()
    made: dict[str, Any] = cloud_event(kind, data, workspace=workspace, event_id=number, time=time)
    return made


def book(conn: Connection[Any], *events: dict[str, Any]) -> list[WorkspaceState]:
    decoded = decode_message(
        json.dumps(list(events)).encode(), names.CONTENT_TYPE_BATCH, now=int(NOW.timestamp()) * 1_000_000
    )
    assert not decoded.rejected
    usages = price(load_book(conn), decoded.usages, [])
    return list(booking.book(conn, usages, decoded.payments).states.values())


def balances(conn: Connection[Any]) -> dict[str, str]:
    rows = conn.execute("SELECT workspace_id, balance FROM taximeter.workspaces")
    return {name: format_usd(to_pico(balance)) for name, balance in rows}


def adjustments(conn: Connection[Any]) -> list[tuple[str, str, str]]:
    rows = conn.execute(
        "SELECT workspace_id, amount, note FROM taximeter.payments WHERE kind = 'adjustment' ORDER BY workspace_id, seq"
    )
    return [(name, format_usd(to_pico(amount)), note) for name, amount, note in rows]


def wrong_for_a_day(conn: Connection[Any], client: redis.Redis) -> None:
    """Ten times the right price, and what it did to three workspaces."""
    set_price(conn, tokens("25"))
    states = book(conn, credit("acme", "p1", "10"), credit("blue", "p1", "100"), credit("coal", "p1", "1"))
    states += book(conn, event("acme", "1", 400_001), event("acme", "2", 100_000, "mail"), event("blue", "1", 7))
    states += book(conn, event("acme", "3", 300_000), event("coal", "1", 1_000, hours=40))
    write_states(client, states)


def run(conn: Connection[Any], client: redis.Redis, selection: Selection, **more: Any) -> list[Any]:
    def publish(states: list[WorkspaceState]) -> None:
        write_states(client, states)

    return list(post(conn, Repricing(selection, "typed 25 for 2.5", "ada"), load_book(conn), publish=publish, **more))


def test_the_story(conn: Connection[Any], redis_client: redis.Redis) -> None:
    wrong_for_a_day(conn, redis_client)
    before = {"acme": "-10.000025", "blue": "99.999825", "coal": "0.975"}
    assert balances(conn) == before
    assert redis_client.hget(names.flag_key("acme"), "enabled") == "0"
    set_price(conn, tokens("2.5"), start=DAY, backdated=True)
    selection = Selection(DAY)

    acme, blue = preview(conn, selection, load_book(conn))  # coal's usage is older than the corrected day
    assert (acme.usages, format_usd(acme.old), format_usd(acme.new)) == (3, "20.000025", "2.0000025")
    assert (acme.status_now, acme.status_then, acme.flips) == ("insufficient", "sufficient", True)
    assert (acme.apart, acme.was_enabled) == (2, False)  # after the second usage and the third
    assert (blue.usages, format_usd(blue.difference), blue.flips, blue.apart) == (1, "0.0001575", False, 0)
    assert balances(conn) == before
    assert adjustments(conn) == []

    posted = run(conn, redis_client, selection)
    assert [(p.change.workspace_id, format_usd(p.change.difference)) for p in posted] == [
        ("acme", "18.0000225"),
        ("blue", "0.0001575"),
    ]
    assert balances(conn) == {"acme": "7.9999975", "blue": "99.9999825", "coal": "0.975"}
    assert redis_client.hget(names.flag_key("acme"), "enabled") == "1"
    assert [amount for _, amount, _ in adjustments(conn)] == ["18.0000225", "0.0001575"]
    assert "typed 25 for 2.5" in adjustments(conn)[0][2]
    listed = conn.execute(
        "SELECT seq, old_cost::text, new_cost::text FROM taximeter.repriced_usages WHERE workspace_id = 'acme' ORDER BY seq"
    ).fetchall()
    assert listed[0] == (1, numeric_text(to_pico("10.000025")), numeric_text(to_pico("1.0000025")))
    assert verify(conn).ok

    assert list(preview(conn, selection, load_book(conn))) == []
    assert run(conn, redis_client, selection) == []
    assert run(conn, redis_client, Selection(DAY - dt.timedelta(days=9), tool="chat", workspace="acme")) == []
    assert len(adjustments(conn)) == 2
    assert conn.execute("SELECT count(*) FROM taximeter.repricings").fetchone() == (1,)


def test_a_second_correction_adjusts_from_what_the_first_one_made(
    conn: Connection[Any], redis_client: redis.Redis
) -> None:
    wrong_for_a_day(conn, redis_client)
    set_price(conn, tokens("2.5"), start=DAY, backdated=True)
    run(conn, redis_client, Selection(DAY, tool="chat"))
    set_price(conn, tokens("5"), start=DAY, correct=True)
    run(conn, redis_client, Selection(DAY, tool="chat"))
    # only mail's usage stands at the wrong price
    assert balances(conn)["acme"] == format_usd(to_pico("10") - to_pico("3.500005") - to_pico("2.5"))
    acme = next(preview(conn, Selection(DAY), load_book(conn)))
    assert (acme.usages, format_usd(acme.difference)) == (1, "2")
    set_price(conn, tokens("25"), start=DAY, correct=True)  # all the way back
    run(conn, redis_client, Selection(DAY))
    assert balances(conn)["acme"] == "-10.000025"
    assert verify(conn).ok


def test_budgets_count_what_a_usage_costs_now(conn: Connection[Any], redis_client: redis.Redis) -> None:
    set_price(conn, tokens("25"))
    book(conn, credit("acme", "p1", "100"))
    whole = Terms("acme", "whole", to_pico("10"), "total")
    mail = Terms("acme", "mail", to_pico("2"), "hours", 24, tool="mail")
    for terms in (whole, mail):
        setting.set_budget(conn, terms)
    states = book(conn, event("acme", "1", 400_000), event("acme", "2", 100_000, "mail"))
    write_states(client=redis_client, states=states)
    assert len(json.loads(redis_client.hget(names.flag_key("acme"), "budgets"))) == 2
    set_price(conn, tokens("2.5"), start=DAY, backdated=True)
    run(conn, redis_client, Selection(DAY))
    spent = {row.terms.name: format_usd(row.spent) for row in reading.list_budgets(conn, "acme")}
    assert spent == {"mail": "0.25", "whole": "1.25"}
    assert redis_client.hget(names.flag_key("acme"), "budgets") == "[]"
    assert {(row.kind, row.cause) for row in reading.crossings(conn, "acme")} >= {("restored", "repricing")}
    for terms in (whole, mail):  # counted from the log, it is the same
        setting.set_budget(conn, terms)
    assert {row.terms.name: format_usd(row.spent) for row in reading.list_budgets(conn, "acme")} == spent


def test_old_and_new_that_add_up_alike_are_listed_without_a_payment(
    conn: Connection[Any], redis_client: redis.Redis
) -> None:
    chat, mail = (
        Price(target=Target(tool, None, None), unit="input_tokens", amount=Decimal(1)) for tool in ("chat", "mail")
    )
    set_price(conn, chat)
    set_price(conn, mail)
    book(conn, event("acme", "1", 1), event("acme", "2", 1, "mail"))
    for wanted, amount in ((chat, "2"), (mail, "0")):
        set_price(
            conn, Price(target=wanted.target, unit="input_tokens", amount=Decimal(amount)), start=DAY, backdated=True
        )
    (posted,) = run(conn, redis_client, Selection(DAY))
    assert (posted.payment_id, posted.change.usages) == (None, 2)
    assert run(conn, redis_client, Selection(DAY)) == []
    assert adjustments(conn) == []


def test_what_has_no_price_any_more_stays_and_is_counted(conn: Connection[Any], redis_client: redis.Redis) -> None:
    wrong_for_a_day(conn, redis_client)
    ended = Price(
        target=tokens("1").target, unit="input_tokens", amount=Decimal(25), per=PER_MILLION, effective_until=DAY
    )
    set_price(conn, ended, ever=True, correct=True)
    found = list(preview(conn, Selection(DAY), load_book(conn)))
    assert [(change.workspace_id, change.usages, change.unpriced) for change in found] == [
        ("acme", 0, 3),
        ("blue", 0, 1),
    ]
    assert run(conn, redis_client, Selection(DAY)) == []


def test_only_one_repricing_at_a_time(conn: Connection[Any], database_url: str, redis_client: redis.Redis) -> None:
    with booking_connection(database_url) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [AdvisoryLock.REPRICE.value])
        with pytest.raises(RepriceError, match="Another repricing"):
            run(conn, redis_client, Selection(DAY))


@pytest.mark.parametrize("point", ["before_reprice_commit:3", "after_reprice_commit:3", "before_reprice_commit:1"])
def test_killed_half_way_and_started_again(
    point: str,
    conn: Connection[Any],
    database_url: str,
    redis_url: str,
    redis_client: redis.Redis,
    environment: dict[str, str],
) -> None:
    set_price(conn, tokens("25"))
    workspaces = [f"w{number}" for number in range(6)]
    states = book(conn, *(credit(name, "p", "5") for name in workspaces))
    states += book(conn, *(event(name, str(n), 100_000 + n) for name in workspaces for n in range(3)))
    write_states(redis_client, states)
    set_price(conn, tokens("2.5"), start=DAY, backdated=True)
    addresses = {
        "TAXIMETER_DATABASE_URL": database_url,
        "TAXIMETER_REDIS_URL": redis_url,
        "TAXIMETER_BROKER_URL": redis_url,
    }
    command = [sys.executable, "-m", "taximeter_cli.entry", "prices", "reprice", "--since", DAY.isoformat()]
    command += ["--post", "--reason", "test", "--json"]
    killed = subprocess.run(
        command, env={**environment, **addresses, "TAXIMETER_FAILPOINT": point}, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = len(adjustments(conn))
    assert done == {"before_reprice_commit:3": 2, "after_reprice_commit:3": 3, "before_reprice_commit:1": 0}[point]

    again = subprocess.run(command, env={**os.environ, **addresses}, capture_output=True, check=True)
    assert len(json.loads(again.stdout)["workspaces"]) == 6 - done
    right = format_usd(to_pico("5") - to_pico("0.7500075"))
    assert balances(conn) == dict.fromkeys(workspaces, right)
    assert len(adjustments(conn)) == 6
    assert verify(conn).ok
    # The flag of the workspace whose process died after its commit is owed, and known to be.
    owed = {row[0] for row in conn.execute("SELECT workspace_id FROM taximeter.stale_flags")}
    for name in workspaces:
        assert name in owed or redis_client.hget(names.balance_key(name), "balance") == right
    third = subprocess.run(command, env={**os.environ, **addresses}, capture_output=True, check=True)
    assert json.loads(third.stdout)["workspaces"] == []
    assert len(adjustments(conn)) == 6


def test_simulation_is_by_workspace_and_tool_and_changes_nothing(
    conn: Connection[Any], redis_client: redis.Redis
) -> None:
    wrong_for_a_day(conn, redis_client)
    other = book_of([tokens("50"), Price(target=Target("mail", None, None), unit="requests", amount=Decimal(1))], {})
    lines = list(simulate(conn, Selection(DAY), other))
    assert [
        (line.workspace_id, line.tool, line.usages, format_usd(line.old), format_usd(line.new)) for line in lines
    ] == [
        ("acme", "chat", 2, "17.500025", "35.00005"),
        ("acme", "mail", 1, "2.5", "5"),
        ("blue", "chat", 1, "0.000175", "0.00035"),
    ]
    empty = book_of([Price(target=Target("mail", None, None), unit="pages", amount=Decimal(1))], {})
    assert [line.unpriced for line in simulate(conn, Selection(DAY), empty)] == [2, 1, 1]
    assert adjustments(conn) == []


def test_it_waits_until_the_revision_is_in_use_and_tells_what_came_under_an_older_one(conn, monkeypatch) -> None:
    monkeypatch.setattr(reprice, "IN_USE_AFTER", dt.timedelta(seconds=0.3))
    set_price(conn, tokens("25"))
    old = load_book(conn)
    revision = set_price(conn, tokens("2.5"), start=DAY, backdated=True)
    new = load_book(conn)
    assert new.revision > old.revision, revision
    in_use_since = reprice.wait_until_in_use(conn, new)
    (made,) = conn.execute("SELECT max(created_at) FROM taximeter.price_revisions").fetchone()
    assert in_use_since >= made + reprice.IN_USE_AFTER
    assert booked_since(conn, Selection(DAY), new.revision, in_use_since) == 0
    decoded = decode_message(
        json.dumps([credit("acme", "p", "5"), event("acme", "1", 10)]).encode(),
        names.CONTENT_TYPE_BATCH,
        now=int(NOW.timestamp()) * 1_000_000,
    )
    booking.book(conn, price(old, decoded.usages, []), decoded.payments)
    assert booked_since(conn, Selection(DAY), new.revision, in_use_since) == 1


def test_usages_ahead_of_their_time_are_found_as_far_as_the_setting_allows(conn, redis_client) -> None:
    set_price(conn, tokens("25"))
    decoded = decode_message(
        json.dumps([event("acme", "1", 400_000, hours=-72)]).encode(),
        names.CONTENT_TYPE_BATCH,
        now=int(NOW.timestamp()) * 1_000_000,
        limits=Limits(future_seconds_max=4 * 86_400),
    )
    assert decoded.rejected == []
    booking.book(conn, price(load_book(conn), decoded.usages, []))
    soon = NOW + dt.timedelta(days=2)
    set_price(conn, tokens("2.5"), start=soon)
    # As it was booked, it cost the price of before: the new one is for later.
    assert list(preview(conn, Selection(soon), load_book(conn))) == []
    [change] = preview(conn, Selection(soon, ahead=dt.timedelta(days=4)), load_book(conn))
    assert (change.workspace_id, change.usages) == ("acme", 1)
