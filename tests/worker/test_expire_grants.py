"""The expiry of grants: booked once, whoever does it, with the flag's debt and the notice; and what an event may say of one."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cloud_events import payment_event
from factories import make_payment, make_usage
from taximeter import names
from taximeter_cli import payments as cli_payments
from taximeter_db import connect
from taximeter_db.audit.verify import verify
from taximeter_db.ledger import booking, grants
from taximeter_db.notices import targets
from taximeter_db.queries import payments
from taximeter_worker.decode.message import decode_message
from taximeter_worker.tasks.expire_grants import expire_grants, expiry_id

YESTERDAY = (dt.datetime.now(dt.UTC) - dt.timedelta(days=1)).isoformat()
FAR = "2099-12-31T23:00:00+01:00"


def promo(payment_id: str, amount: str, expires: str, **more: Any):
    return cli_payments.build("acme", amount, payment_id, "promo", expires=expires, **more)


def test_what_is_left_expires_once_with_its_flag_and_its_notice(database_url: str, role_url: Callable[[str], str]):
    with connect.booking_connection(database_url) as conn:
        wanted = targets.NewTarget(workspace_id="acme", channel="webhook", address="https://hooks.example.com/1")
        targets.add(conn, wanted, None, "the tests")
        booking.book(conn, [], [promo("old", "5", YESTERDAY), promo("later", "7", FAR)])
        booking.book(conn, [make_usage("acme", cost="2")])
        conn.execute("DELETE FROM taximeter.stale_flags")

        def expire(_number: int) -> int:
            with connect.booking_connection(role_url("worker")) as worker:
                return expire_grants(worker)

        with ThreadPoolExecutor(5) as pool:
            assert sum(pool.map(expire, range(5))) == 1
        row = payments.find(conn, "acme", expiry_id("old"))
        assert (row.kind, row.amount, row.balance_after) == ("expiry", -3 * 10**12, 7 * 10**12)
        assert row.transaction == {"payment_id": "old"}
        assert conn.execute("SELECT workspace_id FROM taximeter.stale_flags").fetchall() == [("acme",)]
        assert [(one.payment_id, one.left) for one in grants.standing(conn, "acme")] == [("later", 7 * 10**12)]
        kinds = [json.loads(body)["data"]["cause"]["payment_kind"] for (body,) in conn.execute(
            "SELECT body FROM taximeter.notices WHERE type = 'payment.booked' ORDER BY notice_id"
        )]  # fmt: skip
        assert kinds.count("expiry") == 1
        assert verify(conn).ok


def test_a_grant_that_is_used_up_expires_without_a_payment(database_url: str):
    with connect.booking_connection(database_url) as conn:
        booking.book(conn, [], [promo("old", "5", YESTERDAY)])
        booking.book(conn, [make_usage("acme", cost="6")])
        assert expire_grants(conn) == 0
        assert grants.due(conn) == []
        assert grants.standing(conn, "acme") == []
        booking.book(conn, [], [make_payment("acme", "6")])
        assert expire_grants(conn) == 0


def test_a_transaction_that_fails_leaves_the_grant_as_it_was(database_url: str, monkeypatch: pytest.MonkeyPatch):
    with connect.booking_connection(database_url) as conn:
        booking.book(conn, [], [promo("old", "5", YESTERDAY)])

        def fail(*_given: object) -> None:
            raise RuntimeError("killed before the commit")

        with monkeypatch.context() as patched:
            patched.setattr(grants, "settle", fail)
            with pytest.raises(RuntimeError):
                expire_grants(conn)
        assert payments.find(conn, "acme", expiry_id("old")) is None
        assert expire_grants(conn) == 1


def _read(**data: Any):
    event = payment_event("acme", "5", "p-1", **{"kind": "promo", **data})
    return decode_message(json.dumps(event).encode(), names.CONTENT_TYPE_EVENT, now=1_900_000_000_000_000)


def test_the_terms_are_kept_and_the_same_moment_is_the_same_content():
    one, other = (_read(expires=text, priority=3).payments[0] for text in (FAR, "2099-12-31T22:00:00.000Z"))
    assert one.transaction == {"grant_expires": "2099-12-31T22:00:00+00:00", "grant_priority": "3"}
    assert one.fingerprint == other.fingerprint
    assert _read(expires=FAR).payments[0].fingerprint != one.fingerprint


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"expires": "2026-12-31"}, "bad_time"),
        ({"expires": "2026-12-31T10:00:00"}, "timezone_required"),
        ({"expires": 5}, "bad_time"),
        ({"expires": FAR, "kind": "top_up"}, "bad_kind"),
        ({"priority": 1}, "bad_type"),
        ({"expires": FAR, "priority": "1"}, "bad_type"),
        ({"expires": FAR, "priority": True}, "bad_type"),
        ({"expires": FAR, "priority": 1.5}, "out_of_range"),
        ({"expires": FAR, "priority": -1}, "out_of_range"),
        ({"expires": FAR, "priority": 1001}, "out_of_range"),
        ({"transaction": {"grant_expires": FAR}}, "bad_type"),
    ],
)
def test_terms_that_make_no_sense_are_refused(data: dict[str, Any], reason: str):
    [rejected] = _read(**data).rejected
    assert rejected.reason == reason
