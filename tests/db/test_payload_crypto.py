"""What events said is unreadable in the database, readable with the key, and gone for ever without it."""

from __future__ import annotations

import datetime as dt

import psycopg
import pytest

from taximeter_db import access, connect, quarantine
from taximeter_db.audit.verify import verify
from taximeter_db.crypto import erasure, master_keys, payload_crypto, rotation
from taximeter_db.crypto.payload_crypto import PayloadCrypto
from taximeter_db.errors import MasterKeyError, NotFoundError, PayloadError
from taximeter_db.ledger import booking
from taximeter_db.ledger.context import BookingContext
from taximeter_db.ledger.events import Rejected
from taximeter_db.queries import usages
from taximeter_db.queries.payloads import Payload, payloads

SECRET = b"a question that nobody else may read"
SMALL = b'{"input":"%b"}' % SECRET
LARGE = b'{"input":"%b"}' % (SECRET * 200)
EXACT = b'{"input":"\\ud800\\u0000<b>","output":1e5}'


@pytest.fixture
def masters() -> master_keys.MasterKeys:
    return master_keys.parse(master_keys.new())


def shown(conn, masters, workspace_id: str = "acme", bytes_max: int = 10**6) -> list[Payload]:
    rows = usages.between(conn, workspace_id, 1, 100)
    found = payloads(conn, workspace_id, rows, bytes_max, masters)
    return [found[row.seq] for row in rows if row.seq in found]


def stored(conn) -> list[tuple[int, bytes]]:
    return conn.execute("SELECT codec, payload FROM taximeter.usage_payloads ORDER BY workspace_id, seq").fetchall()


def test_payloads_are_encrypted_and_come_back_byte_exact(conn, usage, masters):
    given = [SMALL, LARGE, EXACT, b"{}"]
    booking.book(
        conn,
        [usage(payload=payload) for payload in [*given, None]],
        context=BookingContext(payload_crypto=PayloadCrypto(masters)),
    )
    assert [codec for codec, _ in stored(conn)] == [2, 3, 2, 2]
    assert all(SECRET not in data for _, data in stored(conn))
    assert len(stored(conn)[1][1]) < len(LARGE) / 10
    assert [payload.data for payload in shown(conn, masters)] == given
    assert all(payload.whole for payload in shown(conn, masters))
    beginning = shown(conn, masters, bytes_max=200)[1]
    assert (beginning.data, beginning.size, beginning.whole) == (LARGE[:200], len(LARGE), False)
    # what is stored much larger than what is wanted is not opened for an excerpt
    assert [payload.data for payload in shown(conn, masters, bytes_max=1)][:2] == [b"", b""]
    assert verify(conn).ok


def test_without_a_master_key_they_are_compressed(conn, usage):
    booking.book(
        conn, [usage(payload=SMALL), usage(payload=LARGE)], context=BookingContext(payload_crypto=PayloadCrypto(None))
    )
    assert [codec for codec, _ in stored(conn)] == [0, 1]
    assert [payload.data for payload in shown(conn, None)] == [SMALL, LARGE]


def test_rows_from_before_still_read_beside_new_ones(conn, usage, masters):
    booking.book(conn, [usage(payload=LARGE)])
    booking.book(conn, [usage(payload=LARGE)], context=BookingContext(payload_crypto=PayloadCrypto(None)))
    booking.book(conn, [usage(payload=LARGE)], context=BookingContext(payload_crypto=PayloadCrypto(masters)))
    assert [codec for codec, _ in stored(conn)] == [0, 1, 3]
    assert [payload.data for payload in shown(conn, masters)] == [LARGE] * 3
    assert [payload.gone for payload in shown(conn, None)] == [None, None, "locked"]
    assert [payload.gone for payload in shown(conn, master_keys.parse(master_keys.new()))][2] == "locked"


def test_a_ciphertext_beside_another_event_or_a_changed_one_does_not_open(conn, usage, masters):
    booking.book(conn, [usage("a", payload=SMALL), usage("a", payload=SMALL), usage("b", payload=SMALL)],
                context=BookingContext(payload_crypto=PayloadCrypto(masters)))  # fmt: skip
    for (name,) in conn.execute("SELECT relid::text FROM pg_partition_tree('taximeter.usage_payloads')").fetchall():
        conn.execute(f"ALTER TABLE {name} DISABLE TRIGGER USER")
    conn.execute(
        """UPDATE taximeter.usage_payloads AS p SET payload = o.payload FROM taximeter.usage_payloads AS o
           WHERE p.workspace_id = 'a' AND o.workspace_id = 'a' AND p.seq = 1 AND o.seq = 2"""
    )
    assert [payload.gone for payload in shown(conn, masters, "a")] == ["damaged", None]
    conn.execute(
        """UPDATE taximeter.usage_payloads AS p SET payload = o.payload FROM taximeter.usage_payloads AS o
           WHERE p.workspace_id = 'b' AND o.workspace_id = 'a' AND o.seq = 2"""
    )
    assert shown(conn, masters, "b")[0].gone == "damaged"
    conn.execute("UPDATE taximeter.usage_payloads SET payload = set_byte(payload, 20, get_byte(payload, 20) # 1)")
    assert [payload.gone for payload in shown(conn, masters, "a")] == ["damaged", "damaged"]
    with pytest.raises(PayloadError, match="does not know"):
        payload_crypto.decode(9, b"", "a", "e", None)


def test_each_workspace_has_one_key_and_it_is_wrapped_for_that_workspace(conn, database_url, usage, masters):
    with connect.booking_connection(database_url) as other:
        for name in "abba":
            booking.book(
                conn, [usage(name, payload=SMALL)], context=BookingContext(payload_crypto=PayloadCrypto(masters))
            )
            booking.book(
                other, [usage(name, payload=SMALL)], context=BookingContext(payload_crypto=PayloadCrypto(masters))
            )
    keys = conn.execute(
        "SELECT workspace_id, number, wrapped, master FROM taximeter.workspace_keys ORDER BY 1"
    ).fetchall()
    assert [(name, number, master) for name, number, _, master in keys] == [
        ("a", 1, masters.current),
        ("b", 1, masters.current),
    ]
    with pytest.raises(MasterKeyError, match="was changed"):
        masters.unwrap("b", keys[0][2], masters.current)


def test_a_worker_without_the_old_master_key_goes_on_with_a_key_of_its_own(conn, usage, masters):
    newer = master_keys.parse(master_keys.new())
    for known in (masters, newer):
        booking.book(conn, [usage(payload=SMALL)], context=BookingContext(payload_crypto=PayloadCrypto(known)))
    assert [payload.gone for payload in shown(conn, newer)] == ["locked", None]
    assert [payload.gone for payload in shown(conn, masters)] == [None, "locked"]


def test_rotation_wraps_anew_and_needs_the_old_key_only_once(conn, usage):
    texts = [master_keys.new(), master_keys.new()]
    old, new = map(master_keys.parse, texts)
    booking.book(
        conn, [usage(name, payload=SMALL) for name in "abc"], context=BookingContext(payload_crypto=PayloadCrypto(old))
    )
    before = stored(conn)
    assert rotation.rotate(conn, new) == rotation.Rotated(0, 3)
    both = master_keys.parse(f"{texts[1]}\n{texts[0]}\n")
    assert rotation.rotate(conn, both) == rotation.Rotated(3, 0)
    assert rotation.rotate(conn, both) == rotation.Rotated(0, 0)
    assert rotation.names(conn) == {new.current: 3}
    assert stored(conn) == before
    assert [payload.data for payload in shown(conn, new, "b")] == [SMALL]
    assert shown(conn, old, "b")[0].gone == "locked"


def test_erased_contents_are_gone_and_the_ledger_still_verifies(conn, usage, masters):
    payload_crypto = PayloadCrypto(masters)
    booking.book(conn, [usage("a", payload=SMALL), usage("b", payload=SMALL)])  # from before there was a key
    booking.book(
        conn,
        [usage("a", payload=LARGE), usage("b", payload=LARGE)],
        context=BookingContext(payload_crypto=payload_crypto),
    )
    negative = Rejected("negative_quantity", "No.", SMALL, None, "a", "e-1", "usage")
    booking.book(conn, [], [], [negative, Rejected("price_missing", "No.", LARGE, None, "b", "e-2", "usage")])
    [entry] = quarantine.find(conn, workspace_id="a")
    quarantine.log_replay(conn, entry.id, "kept", quarantine.Attempt("me", correction=SMALL))
    before = conn.execute("SELECT * FROM taximeter.usages ORDER BY workspace_id, seq").fetchall()

    assert erasure.erase(conn, "a", by="olga") == erasure.Erased(keys=1, usages=1, quarantined=1)

    assert [payload.gone for payload in shown(conn, masters, "a")] == ["erased", "erased"]
    assert all(payload.erased_at is not None for payload in shown(conn, masters, "a"))
    assert [payload.data for payload in shown(conn, masters, "b")] == [SMALL, LARGE]
    everything = conn.execute(
        """SELECT string_agg(q::text, '') || (SELECT string_agg(a::text, '') FROM taximeter.quarantine_actions AS a)
           FROM taximeter.quarantine AS q WHERE workspace_id = 'a'"""
    ).fetchone()[0]
    assert SECRET.hex() not in everything
    gone = quarantine.get(conn, entry.id)
    assert (gone.event, gone.resolution, gone.resolved_by) == (b"", "dismissed", "olga")
    assert quarantine.find(conn, workspace_id="b")[0].event == LARGE
    assert conn.execute("SELECT * FROM taximeter.usages ORDER BY workspace_id, seq").fetchall() == before
    assert verify(conn).ok
    [change] = access.changes(conn, "a")
    assert (change.changed_by, change.field) == ("olga", erasure.FIELD)
    erasures = conn.execute("SELECT erased_by, keys, usages, quarantined FROM taximeter.payload_erasures ORDER BY id")
    assert erasures.fetchall() == [("olga", 1, 0, 0), ("olga", 0, 1, 1)], "the keys at once, the rest when it is done"
    # a worker that still remembers the old key must not use it
    booking.book(
        conn,
        [usage("a", payload=SMALL), usage("b", payload=SMALL)],
        context=BookingContext(payload_crypto=payload_crypto),
    )
    assert [payload.gone for payload in shown(conn, masters, "a")] == ["erased", "erased", None]
    assert conn.execute("SELECT number FROM taximeter.workspace_keys WHERE wrapped IS NOT NULL ORDER BY workspace_id").fetchall() == [(2,), (1,)]  # fmt: skip
    moment = dt.datetime.now(dt.UTC)
    assert erasure.erase(conn, "a", by="olga") == erasure.Erased(1, 0, 0)
    first, *_, last = shown(conn, masters, "a")
    assert first.erased_at < moment < last.erased_at
    with pytest.raises(NotFoundError):
        erasure.erase(conn, "nobody", by="olga")


def test_only_an_erasure_that_says_so_may_overwrite(conn, usage):
    booking.book(conn, [usage(payload=SMALL)])
    with conn.transaction():
        conn.execute("SET LOCAL taximeter.erasing = 'on'")
        for statement in (
            "DELETE FROM taximeter.usage_payloads",
            "UPDATE taximeter.usages SET cost = 0",
            "DELETE FROM taximeter.payload_erasures",
        ):
            with pytest.raises(Exception, match="append-only"), conn.transaction():
                conn.execute(statement)
    with pytest.raises(Exception, match="append-only"):
        conn.execute("UPDATE taximeter.usage_payloads SET payload = ''")


def test_an_erasure_empties_and_forges_nothing(conn, masters, usage, payment):
    rejected = Rejected("bad_json", "Nothing to see.", b"{", None, workspace_id="a")
    booking.book(conn, [usage("a", payload=SMALL)], [payment("a")], [rejected, rejected])
    conn.execute("UPDATE taximeter.quarantine SET resolved_at = now(), resolution = 'dismissed', resolved_by = 'olga'")
    conn.execute(
        """INSERT INTO taximeter.quarantine_actions (entry_id, action, result, correction, done_by)
           SELECT id, 'replay', 'kept', '{}', 'olga' FROM taximeter.quarantine"""
    )
    (partition,) = conn.execute("SELECT tableoid::regclass::text FROM taximeter.usage_payloads").fetchone()
    with conn.transaction():
        conn.execute("SET LOCAL taximeter.erasing = 'on'")
        for table, change in (
            ("usage_payloads", "payload = 'forged', codec = 0"),
            ("usage_payloads", "payload = ''"),
            ("usage_payloads", "payload = '', codec = -1, seq = 7"),
            (partition.removeprefix("taximeter."), "payload = 'forged', codec = 0"),
            ("quarantine_actions", "correction = 'forged'"),
            ("quarantine_actions", "correction = NULL, done_by = 'eve'"),
            ("quarantine", "event = 'forged'"),
            ("quarantine", "event = '', resolution = 'booked'"),
            ("quarantine", "event = '', resolved_by = 'eve'"),
        ):
            with pytest.raises(psycopg.errors.RestrictViolation), conn.transaction():
                conn.execute(f"UPDATE taximeter.{table} SET {change}")
    assert erasure.erase(conn, "a", by="olga").quarantined
    assert conn.execute("SELECT DISTINCT resolved_by, event FROM taximeter.quarantine").fetchall() == [("olga", b"")]
    assert conn.execute("SELECT DISTINCT correction FROM taximeter.quarantine_actions").fetchall() == [(None,)]


def test_master_keys_are_read_strictly_and_never_shown(tmp_path, monkeypatch):
    text = master_keys.new()
    known = master_keys.parse(f" {text} , {master_keys.new()}")
    assert text not in repr(known)
    assert known.current == master_keys.parse(text).current
    file = master_keys.make_file(tmp_path / "key")
    assert file.stat().st_mode & 0o777 == 0o600
    kept = file.read_text()
    assert master_keys.make_file(file).read_text() == kept
    assert master_keys.read_file(file).current == master_keys.parse(kept).current
    for bad in ("", "short", "!" * 44, text[:-4], "A" * 42 + "=="):
        with pytest.raises(MasterKeyError) as refused:
            master_keys.parse(bad)
        assert not bad or bad not in str(refused.value)
    with pytest.raises(MasterKeyError, match="names a file that cannot be read"):
        master_keys.read_file(tmp_path / "none")
