"""What is not the log: price book, limits and rollups. Whoever changes them leaves a trace, or is found by verify."""

from __future__ import annotations

from decimal import Decimal

import pytest

from taximeter_db import access, connect, flag_debts, workspaces
from taximeter_db.audit import checkpoint
from taximeter_db.audit.verify import verify
from taximeter_db.ledger import booking, rollups
from taximeter_db.prices import changes, store
from taximeter_db.prices.terms import Price, Target

KEY = b"a secret of sixteen bytes or more"
USD = 10**12
CHAT = Target("chat", None, None, None)


def taken(conn) -> checkpoint.Checkpoint:
    return checkpoint.read(list(checkpoint.make(conn, KEY)), KEY)


def triggers_off(conn, *tables: str) -> None:
    for table in tables:
        conn.execute(f"ALTER TABLE taximeter.{table} DISABLE TRIGGER USER")


@pytest.fixture
def owner(database_url: str):
    with connect.connection(database_url) as connection:
        yield connection


@pytest.fixture
def priced(owner):
    for unit, amount in (("requests", "1"), ("seconds", "2"), ("images", "3")):
        changes.set_price(owner, Price(target=CHAT, unit=unit, amount=Decimal(amount)), ever=True)
    assert store.current_revision(owner) == 3
    assert verify(owner).ok
    return owner


@pytest.mark.parametrize(
    ("tampering", "revision"),
    [
        ("UPDATE taximeter.price_entries SET amount = 0 WHERE revision = 2", 2),
        ("UPDATE taximeter.price_entries SET unit = 'pages' WHERE revision = 1", 1),
        ("UPDATE taximeter.price_entries SET revision = 1 WHERE revision = 2", 1),
        ("DELETE FROM taximeter.price_entries WHERE revision = 3", 3),
        ("UPDATE taximeter.price_revisions SET reason = 'another' WHERE revision = 2", 2),
        ("DELETE FROM taximeter.price_revisions WHERE revision = 3", 3),
        ("INSERT INTO taximeter.price_aliases VALUES ('c', 2, '{}')", 2),
        ("INSERT INTO taximeter.price_aliases VALUES ('c', 0, '{}')", 0),
        ("UPDATE taximeter.price_links SET link = sha256('x') WHERE revision = 2", 2),
        ("DELETE FROM taximeter.price_links WHERE revision = 3", 3),
    ],
)
def test_a_price_book_that_was_changed_is_found(priced, tampering: str, revision: int):
    triggers_off(priced, "price_entries", "price_revisions", "price_aliases", "price_links")
    assert priced.execute(tampering).rowcount
    (fault,) = verify(priced).faults
    assert (fault.kind, fault.stored) == ("prices", str(revision))
    assert f"revision {revision} of the price book" in fault.sentence


def test_a_price_book_with_new_links_is_found_by_the_checkpoint(priced):
    known = taken(priced)
    triggers_off(priced, "price_entries", "price_links")
    priced.execute("UPDATE taximeter.price_entries SET amount = 0 WHERE revision = 3")
    priced.execute(
        """UPDATE taximeter.price_links AS l
           SET link = sha256((SELECT b.link FROM taximeter.price_links AS b WHERE b.revision = 2) || taximeter.price_content(3))
           WHERE revision = 3"""
    )
    assert verify(priced).ok
    assert [(fault.kind, fault.stored) for fault in verify(priced, checkpoint=known).faults] == [("prices", "3")]


def test_a_price_book_that_grew_agrees_with_the_checkpoint(priced):
    known = taken(priced)
    changes.set_price(priced, Price(target=CHAT, unit="pages", amount=Decimal(1)))
    assert verify(priced, checkpoint=known).ok
    assert verify(priced, checkpoint=known, since=True).ok


@pytest.mark.parametrize("login", ["owner", "worker"])
def test_a_limit_changed_by_anyone_is_logged_and_its_flag_owed(
    conn, owner, database_url, role_url, payment, login: str
):
    booking.book(conn, [], [payment("acme", amount=USD)])
    before = booking.read_states(conn, ["acme"])[0]
    flag_debts.settle(owner, flag_debts.owed(owner))
    with connect.connection(database_url if login == "owner" else role_url(login)) as other:
        user = other.info.user
        other.execute(
            "UPDATE taximeter.workspaces SET minimum_balance = -100000, low_balance_threshold = 2.50 WHERE workspace_id = 'acme'"
        )
    found = {(change.field, change.value_before, change.value_after) for change in access.changes(owner, "acme")}
    assert found == {("minimum", "-0.12", "-100000"), ("low", "0", "2.5")}
    assert {change.changed_by for change in access.changes(owner, "acme")} == {f"database user {user}"}
    assert [debt.workspace_id for debt in flag_debts.owed(owner)] == ["acme"]
    assert booking.read_states(conn, ["acme"])[0].version == before.version + 1, "newer than the flag in Redis"
    status = owner.execute(
        "SELECT status_before, status_after, cause, cause_id FROM taximeter.status_changes ORDER BY id"
    )
    assert status.fetchall()[-1] == ("sufficient", "low", "settings", f"database user {user}")
    assert verify(owner).ok


def test_a_limit_set_the_usual_way_is_logged_once_under_the_name_given(owner):
    workspaces.set_limits(owner, "acme", minimum=-USD, by="olga")
    workspaces.set_limits(owner, "acme", minimum=-2 * USD, low=USD, by="otto")
    workspaces.set_limits(owner, "acme", by="nobody")
    owner.execute("UPDATE taximeter.workspaces SET minimum_balance = minimum_balance WHERE workspace_id = 'acme'")
    log = [(change.changed_by, change.field, change.value_after) for change in access.changes(owner, "acme")]
    assert sorted(log) == [
        ("olga", "low", "0"), ("olga", "minimum", "-1"), ("otto", "low", "1"), ("otto", "minimum", "-2"),
    ]  # fmt: skip
    assert owner.execute("SELECT count(*) FROM taximeter.status_changes").fetchone() == (1,)


def test_a_limit_changed_without_the_trigger_is_found(owner, conn, payment):
    workspaces.set_limits(owner, "acme", minimum=-USD, by="olga")
    booking.book(conn, [], [payment("never-changed")])
    known = taken(owner)
    assert verify(owner, checkpoint=known).ok
    triggers_off(owner, "workspaces")
    owner.execute("UPDATE taximeter.workspaces SET minimum_balance = -100000")
    faults = verify(owner).faults
    assert [(fault.kind, fault.workspace_id, fault.field) for fault in faults] == [("limits", "acme", "minimum")]
    assert faults[0].sentence == "acme: the minimum limit is -100000, but the last that was written down of it is -1"
    faults = verify(owner, checkpoint=known).faults
    assert [(fault.workspace_id, fault.computed) for fault in faults] == [("acme", "-1"), ("never-changed", "-0.12")]


def test_limits_that_were_changed_after_the_checkpoint_agree_with_it(owner):
    workspaces.set_limits(owner, "acme", minimum=-USD)
    known = taken(owner)
    workspaces.set_limits(owner, "acme", minimum=-2 * USD)
    workspaces.set_limits(owner, "acme", minimum=-3 * USD, low=USD)
    assert verify(owner, checkpoint=known).ok
    assert verify(owner, checkpoint=known, since=True).ok


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE taximeter.usage_rollups SET cost = cost + 1",
        "UPDATE taximeter.usage_rollups SET usages = usages + 1",
        "DELETE FROM taximeter.usage_rollups",
        "UPDATE taximeter.rollup_progress SET seq = seq - 1",
        "DELETE FROM taximeter.rollup_progress",
    ],
)
def test_rollups_that_do_not_add_up_to_the_log_are_found(conn, owner, usage, payment, tampering: str):
    booking.book(conn, [], [payment("a"), payment("b")])
    booking.book(conn, [usage(name, cost=5) for name in "aabb"])
    for name in "ab":
        rollups.follow(owner, name, 10)
    booking.book(conn, [usage("a", cost=7)], [payment("a")])
    assert verify(owner).ok
    owner.execute(f"{tampering} WHERE workspace_id = 'a'")
    assert [(fault.workspace_id, fault.kind) for fault in verify(owner).faults] == [("a", "rollups")]


def test_a_workspace_that_was_never_rolled_up_is_no_fault(conn, owner, usage):
    booking.book(conn, [usage("a")])
    assert verify(owner).ok
