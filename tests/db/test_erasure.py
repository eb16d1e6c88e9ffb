"""An erasure is long where there is much to overwrite; nobody waits for it, and it may be interrupted."""

from __future__ import annotations

import datetime as dt
import threading
from contextlib import contextmanager

import psycopg
import pytest

from taximeter_db import connect, quarantine
from taximeter_db.audit.verify import verify
from taximeter_db.crypto import erasure, master_keys
from taximeter_db.crypto.payload_crypto import PayloadCrypto
from taximeter_db.errors import NotFoundError
from taximeter_db.ledger import booking
from taximeter_db.ledger.context import BookingContext
from taximeter_db.ledger.events import Rejected

TEXT = b'{"input":"a question"}'


@pytest.fixture
def owner(database_url: str):
    with connect.connection(database_url) as connection:
        yield connection


@contextmanager
def erasing_while_one_row_is_held(database_url: str, held: str, waiting_for: str):
    """An erasure of "a" that cannot finish, because somebody holds the row; yields once it waits there."""
    failures: list[BaseException] = []

    def erase() -> None:
        try:
            with connect.connection(database_url) as conn:
                erasure.erase(conn, "a", by="olga")
        except BaseException as error:
            failures.append(error)

    with connect.connection(database_url, autocommit=False) as holder, connect.connection(database_url) as watcher:
        holder.execute(held)
        thread = threading.Thread(target=erase)
        thread.start()
        try:
            while not watcher.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
                " AND query LIKE %s", [f"%{waiting_for}%"],
            ).fetchone()[0]:  # fmt: skip
                assert not failures, failures
                assert thread.is_alive()
            yield
        finally:
            holder.rollback()
            thread.join(60)
    assert failures == []


@pytest.mark.parametrize(
    ("held", "waiting_for"),
    [
        ("SELECT FROM taximeter.usage_payloads WHERE workspace_id = 'a' AND seq = 2 FOR UPDATE", "usage_payloads SET"),
        ("SELECT FROM taximeter.quarantine WHERE workspace_id = 'a' FOR UPDATE", "UPDATE taximeter.quarantine"),
    ],
)
def test_booking_goes_on_while_an_erasure_overwrites(
    conn, owner, database_url, usage, held: str, waiting_for: str, monkeypatch
):
    monkeypatch.setattr(erasure, "PAYLOADS_AT_ONCE", 1)
    crypto = PayloadCrypto(master_keys.parse(master_keys.new()))
    booking.book(conn, [usage("a", payload=TEXT) for _ in range(3)])
    booking.book(conn, [usage("a", payload=TEXT)], context=BookingContext(payload_crypto=crypto))
    booking.book(conn, [], [], [Rejected("price_missing", "No.", TEXT, None, "a", "e", "usage")])
    conn.execute("SET lock_timeout = '5s'")
    with erasing_while_one_row_is_held(database_url, held, waiting_for):
        assert (
            booking.book(conn, [usage("a", payload=TEXT)], context=BookingContext(payload_crypto=crypto)).usages_booked
            == 1
        )
        keys = owner.execute("SELECT number FROM taximeter.workspace_keys WHERE wrapped IS NOT NULL").fetchall()
        assert keys == [(2,)], "the old key is destroyed before anything is overwritten"
        first = owner.execute("SELECT codec FROM taximeter.usage_payloads WHERE seq = 1").fetchone()
        assert first == (-1,), "chunk by chunk: what was overwritten is so for everybody"
    codecs = owner.execute("SELECT codec FROM taximeter.usage_payloads ORDER BY seq").fetchall()
    assert codecs == [(-1,), (-1,), (-1,), (2,), (2,)]
    assert owner.execute("SELECT event, resolved_by FROM taximeter.quarantine").fetchall() == [(b"", "olga")]
    assert verify(owner).ok


def test_an_interrupted_erasure_goes_on_where_it_is_run_again(conn, owner, usage, monkeypatch):
    booking.book(conn, [usage("a", payload=TEXT) for _ in range(5)])
    monkeypatch.setattr(erasure, "PAYLOADS_AT_ONCE", 2)
    with monkeypatch.context() as patch:
        patch.setattr(erasure, "_empty_quarantine", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            erasure.erase(owner, "a", by="olga")
    assert erasure.erase(owner, "a", by="olga") == erasure.Erased(0, 0, 0)
    assert owner.execute("SELECT DISTINCT codec FROM taximeter.usage_payloads").fetchall() == [(-1,)]
    assert {row[0] for row in owner.execute("SELECT erased_by FROM taximeter.payload_erasures")} == {"olga"}


@pytest.mark.parametrize("resolved", [False, True])
def test_one_entry_is_erased_though_it_names_no_workspace(conn, owner, resolved: bool):
    booking.book(
        conn,
        [],
        [],
        [
            Rejected("bad_json", "Not JSON (byte 9).", TEXT, None, properties='{"headers":{"x":"a"}}'),
            Rejected("bad_json", "x", b"{", None),
        ],
    )
    first, second = quarantine.find(owner)
    entry, other = (first, second) if first.event == TEXT else (second, first)
    quarantine.log_replay(owner, entry.id, "kept", quarantine.Attempt("me", correction=TEXT), reason="bad_json")
    if resolved:
        quarantine.dismiss(owner, entry.id, by="otto", note="sent again")
    assert erasure.erase_entry(owner, entry.id, by="olga")
    gone = quarantine.get(owner, entry.id)
    assert gone.properties is None
    assert (gone.event, gone.reason, gone.detail) == (b"", "bad_json", "Not JSON (byte 9).")
    assert (gone.resolution, gone.resolved_by) == ("dismissed", "otto" if resolved else "olga")
    actions = quarantine.actions(owner, entry.id)
    assert [action.correction for action in actions if action.correction] == []
    assert (actions[-1].action, actions[-1].result, actions[-1].done_by) == ("erase", "erased", "olga")
    assert quarantine.get(owner, other.id).event == b"{"
    assert not erasure.erase_entry(owner, entry.id, by="olga"), "nothing was left"
    assert len(quarantine.actions(owner, entry.id)) == len(actions)
    with pytest.raises(NotFoundError):
        erasure.erase_entry(owner, 10**9, by="olga")


def test_what_dismissed_entries_said_is_forgotten_after_a_time_and_nothing_else(conn, owner, role_url):
    texts = [b"%d" % number for number in range(5)]
    booking.book(conn, [], [], [Rejected("bad_json", "No.", text, None) for text in texts])
    entries = quarantine.find(owner)
    for entry in entries[:3]:
        quarantine.log_replay(owner, entry.id, "kept", quarantine.Attempt("me", correction=TEXT))
        quarantine.dismiss(owner, entry.id, by="olga", note="noise")
    with connect.connection(role_url("worker")) as worker:
        forget = "SELECT taximeter.forget_dismissed(%s::timestamptz, %s)"
        assert worker.execute(forget, [entries[0].received_at, 10]).fetchone() == (0,)
        assert worker.execute(forget, ["infinity", 2]).fetchone() == (2,)
        assert worker.execute(forget, ["infinity", 2]).fetchone() == (1,)
        assert worker.execute(forget, ["infinity", 2]).fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            worker.execute("UPDATE taximeter.quarantine SET event = ''")
    after = {entry.id: entry.event for entry in quarantine.find(owner, resolved=True)}
    assert after == {entry.id: b"" if entry in entries[:3] else entry.event for entry in entries}
    assert {action.correction for entry in entries for action in quarantine.actions(owner, entry.id)} == {None}


def test_old_dismissals_are_forgotten_in_portions(conn, owner, role_url, monkeypatch):
    booking.book(conn, [], [], [Rejected("bad_json", "No.", b"%d" % number, None) for number in range(5)])
    for entry in quarantine.find(owner)[:3]:
        quarantine.dismiss(owner, entry.id, by="olga", note="noise")
    with connect.connection(role_url("worker")) as worker:
        assert quarantine.forget_dismissed(worker, older_than=dt.timedelta(days=1)) == 0
        assert quarantine.forget_dismissed(worker, older_than=dt.timedelta(0)) == 3
        assert quarantine.forget_dismissed(worker, older_than=dt.timedelta(0)) == 0
    assert [entry.event == b"" for entry in quarantine.find(owner, resolved=True)] == [True] * 3 + [False] * 2


def test_a_full_quarantine_keeps_the_beginning_of_what_names_no_workspace(conn, owner):
    rubbish, event, short = b"{" * 5000, b"[" * 5000, b"x"
    rejected = [
        Rejected("bad_json", "No.", rubbish, None),
        Rejected("bad_json", "No.", short, None),
        Rejected("price_missing", "No.", event, None, "a", "e", "usage"),
    ]
    booking.book(conn, [], [], rejected)
    assert {entry.event for entry in quarantine.find(owner)} == {rubbish, event, short}
    conn.execute("SET taximeter.quarantine_bytes_max = '1'")
    owner.execute("UPDATE taximeter.quarantine SET resolved_at = now(), resolution = 'dismissed'")
    booking.book(conn, [], [], rejected)
    kept = {entry.event: entry.detail for entry in quarantine.find(owner)}
    assert kept.keys() == {rubbish[:1024], event, short}
    assert kept[rubbish[:1024]] == "No. The quarantine is full: of 5000 bytes the first 1024 are kept."
    booking.book(conn, [], [], rejected)
    assert len(quarantine.find(owner)) == 3, "a redelivered message is still told by the digest of all of it"
