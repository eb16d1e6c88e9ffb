"""Notices are written in the transaction that causes them: once for a crossing, in order, for the targets that want them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from taximeter_db import connect, workspaces
from taximeter_db.errors import SettingsError
from taximeter_db.ledger import booking
from taximeter_db.ledger.context import BookingContext
from taximeter_db.ledger.events import PriceQuery, Rejected
from taximeter_db.notices import outbox, targets
from taximeter_db.notices.targets import NewTarget
from taximeter_db.prices.changes import set_price
from taximeter_db.prices.store import Price, Target
from taximeter_db.queries import scope

USD = 10**12
STATUSES = ("workspace.low", "workspace.insufficient", "workspace.restored")


@pytest.fixture
def target(conn) -> Callable[..., targets.Added]:
    def make(workspace_id: str = "acme", **other: Any) -> targets.Added:
        fields = {"channel": "webhook", "address": "https://hooks.example.com/secret-path", **other}
        return targets.add(conn, NewTarget(workspace_id=workspace_id, **fields), None, "olga")

    return make


def bodies(conn: psycopg.Connection, workspace_id: str = "acme") -> list[dict[str, Any]]:
    query = "SELECT body FROM taximeter.notices WHERE workspace_id = %s ORDER BY notice_id"
    return [json.loads(body) for (body,) in conn.execute(query, [workspace_id])]


def deliveries(conn: psycopg.Connection) -> list[tuple[str, int, str]]:
    query = """SELECT workspace_id, target_id, type FROM taximeter.notice_deliveries
               JOIN taximeter.notices USING (workspace_id, notice_id) ORDER BY notice_id, target_id"""
    return conn.execute(query).fetchall()


def test_each_crossing_is_one_notice_with_its_cause(conn, usage, payment, target):
    target(types=STATUSES)
    booking.book(conn, [usage(event_id="a", cost=1), *(usage(cost=1) for _ in range(50))])
    booking.book(conn, [usage(cost=USD // 20), usage(event_id="b", cost=USD // 10), usage(cost=5)])
    booking.book(conn, [], [payment(payment_id="p", amount=USD)])
    low, insufficient, restored = bodies(conn)
    assert low["type"] == "workspace.low"
    assert low["data"] | {"advice": ""} == {
        "workspace": "acme",
        "status": "low",
        "status_before": "sufficient",
        "enabled": True,
        "balance": "-0.000000000001",
        "minimum_balance": "-0.12",
        "low_balance_threshold": "0",
        "entry": 1,
        "cause": {"kind": "usage", "id": "a", "seq": 1},
        "advice": "",
    }
    assert (insufficient["type"], insufficient["data"]["cause"]["id"]) == ("workspace.insufficient", "b")
    assert (insufficient["data"]["status"], insufficient["data"]["enabled"]) == ("insufficient", False)
    assert (restored["type"], restored["data"]["cause"]) == (
        "workspace.restored",
        {"kind": "payment", "id": "p", "seq": 1},
    )
    changed = conn.execute("SELECT changed_at FROM taximeter.status_changes ORDER BY id LIMIT 1").fetchone()[0]
    assert low["timestamp"] == changed.isoformat(timespec="microseconds").replace("+00:00", "Z")


def test_what_is_owed_to_switch_ai_on_is_said_exactly(conn, usage, target):
    target(types=STATUSES)
    booking.book(conn, [usage(cost=USD // 2)])
    assert bodies(conn)[-1]["data"]["advice"] == "AI is off. 0.38 USD or more switches it on again."


def test_back_within_the_warning_is_restored_and_low(conn, usage, payment, target):
    target(types=STATUSES)
    booking.book(conn, [usage(cost=USD)])
    booking.book(conn, [], [payment(amount=USD - 1)])
    assert [(body["type"], body["data"]["status"]) for body in bodies(conn)] == [
        ("workspace.insufficient", "insufficient"),
        ("workspace.restored", "low"),
    ]


def test_limits_cause_notices_too(conn, usage, target):
    target(types=STATUSES)
    booking.book(conn, [usage(cost=USD // 10)])
    workspaces.set_limits(conn, "acme", minimum=0, by="olga")
    assert bodies(conn)[-1]["type"] == "workspace.insufficient"
    assert bodies(conn)[-1]["data"]["cause"] == {"kind": "settings", "by": "olga"}


def test_a_payment_is_told_before_what_it_restores(conn, usage, payment, target):
    target()
    booking.book(conn, [usage(cost=USD)])
    booking.book(conn, [], [payment(payment_id="p", amount=2 * USD)])
    booked, restored = bodies(conn)[-2:]
    assert (booked["type"], booked["data"]["amount"]) == ("payment.booked", "2")
    assert booked["data"]["cause"] == {"kind": "payment", "id": "p", "payment_kind": "top_up"}
    assert restored["type"] == "workspace.restored"


def test_a_batch_booked_again_tells_nothing_again(conn, usage, payment, target):
    target()
    batch, paid = [usage(cost=USD)], [payment(amount=7)]
    for _ in range(3):
        booking.book(conn, batch, paid)
    assert len(bodies(conn)) == 2


def test_a_transaction_that_fails_tells_nothing(conn, usage, target):
    target()

    def fail() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        booking.book(conn, [usage(cost=USD)], context=BookingContext(before_commit=fail))
    assert (bodies(conn), deliveries(conn)) == ([], [])


def test_only_targets_that_want_a_notice_get_it(conn, usage, payment, target):
    everything = target("*").target_id
    low = target("acme", types=("workspace.low",)).target_id
    others = target("beta").target_id
    booking.book(conn, [usage("acme", cost=1)], [payment("gamma", amount=5)])
    assert deliveries(conn) == [("gamma", everything, "payment.booked")] + [
        ("acme", number, "workspace.low") for number in (everything, low)
    ]
    assert others not in {row[1] for row in deliveries(conn)}


def test_a_notice_that_nobody_wants_is_not_written(conn, usage, target):
    target("beta")
    booking.book(conn, [usage("acme", cost=USD)])
    assert bodies(conn) == []


def test_the_page_writes_notices_of_its_own_workspace_alone(conn, target, role_url):
    """Its limits cause them under row-level security, for the platform's targets too."""
    target("*")
    with connect.connection(role_url("dashboard")) as page:
        with page.transaction():
            scope.enter(page, "acme")
            workspaces.set_limits(page, "acme", minimum=USD, low=USD, by="olga")
            assert targets.listed(page, "*") == []
        others = outbox.Notice(workspace_id="beta", type=outbox.WORKSPACE_LOW, at=0, data={})
        with page.transaction():
            scope.enter(page, "acme")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                outbox.put(page, [others])
    assert [body["data"]["cause"] for body in bodies(conn)] == [{"kind": "settings", "by": "olga"}]


def test_notices_of_a_workspace_are_numbered_as_its_ledger_moved(database_url, conn, usage, payment, target):
    """Workers that book the same workspace at once: the order of the notices is the order of the balances."""
    target(types=STATUSES)
    started = threading.Barrier(4)

    def work(number: int) -> None:
        with connect.booking_connection(database_url) as mine:
            started.wait(60)
            for _ in range(30):
                if number % 2:
                    booking.book(mine, [usage(cost=USD // 5), usage(cost=USD // 5)])
                else:
                    booking.book(mine, [], [payment(amount=USD // 3)])

    with ThreadPoolExecutor(4) as pool:
        for one in [pool.submit(work, number) for number in range(4)]:
            one.result()
    told = [body["data"] for body in bodies(conn)]
    assert len(told) == conn.execute("SELECT count(*) FROM taximeter.status_changes").fetchone()[0] > 0
    entries = [data["entry"] for data in told]
    assert entries == sorted(entries)
    statuses = ["sufficient", *(data["status"] for data in told)]
    assert [data["status_before"] for data in told] == statuses[:-1]


def test_a_missing_price_is_told_once_for_each_price_book(conn, usage, target):
    target(types=("price.missing",))

    def lacking(model: str) -> Rejected:
        one = usage(model=model)
        entry = Rejected.of(one, "price_missing", "no price")
        entry.price_query = PriceQuery.of(one)
        return entry

    for _ in range(3):
        booking.book(conn, [usage()], rejected=[lacking("new-model"), lacking("new-model"), lacking("other")])
    assert [body["data"]["cause"]["model"] for body in bodies(conn)] == ["new-model", "other"]
    assert conn.execute("SELECT count(*) FROM taximeter.quarantine").fetchone() == (9,)
    price = Price(target=Target(None, "openai", "gpt-4o"), unit="input_tokens", amount=Decimal(1), per=Decimal(1))
    set_price(conn, price)
    booking.book(conn, [], rejected=[lacking("other")])
    assert [body["data"]["cause"]["model"] for body in bodies(conn)] == ["new-model", "other", "other"]


@pytest.mark.parametrize(
    ("channel", "address"),
    [
        ("webhook", "http://hooks.example.com/"),
        ("webhook", "https://user:secret@hooks.example.com/"),
        ("webhook", "https://127.0.0.1/"),
        ("webhook", "https://[::1]/"),
        ("webhook", "https://[::ffff:169.254.169.254]/"),
        ("webhook", "https://0x7f000001/"),
        ("webhook", "https://2130706433/"),
        ("webhook", "https://127.1/"),
        ("webhook", "https://localhost/"),
        ("webhook", "https://10.1.2.3/"),
        ("webhook", "https://169.254.169.254/latest/meta-data"),
        ("webhook", "file:///etc/passwd"),
        ("webhook", "https:///path"),
        ("webhook", "https://host:port/"),
        ("webhook", "https://host/\r\nX-Evil: 1"),
        ("apprise", "syslog://"),
        ("apprise", "jsons://hooks.example.com"),
        ("apprise", "no address"),
    ],
)
def test_an_address_that_notices_may_not_go_to_is_refused_and_not_quoted(conn, target, channel, address):
    with pytest.raises(SettingsError) as caught:
        target(channel=channel, address=address)
    assert address not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert targets.listed(conn) == []


def test_a_target_shows_nothing_secret(conn, target):
    target()
    target(channel="apprise", address="slack://TokenA/TokenB/TokenC/#general")
    assert [row.shown for row in targets.listed(conn, "acme")] == ["https://hooks.example.com", "slack://…"]
    logged = conn.execute("SELECT value_after FROM taximeter.workspace_changes ORDER BY id").fetchall()
    assert [text.partition(": ")[2] for (text,) in logged] == ["https://hooks.example.com", "slack://…"]
