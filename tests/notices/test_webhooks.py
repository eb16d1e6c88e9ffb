"""What a webhook gets, and what it can do to whoever delivers."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import socket
from dataclasses import replace

import pytest
from standardwebhooks.webhooks import WebhookVerificationError

import notice_receivers
from notice_receivers import RawReceiver, Receiver
from taximeter_db.crypto import master_keys, rotation
from taximeter_db.errors import MasterKeyError
from taximeter_db.notices import deliveries, targets
from taximeter_worker.metrics import Metrics
from taximeter_worker.notices import webhook
from taximeter_worker.notices.deliverer import Deliverer


def last_try(conn) -> tuple[str, str]:
    return conn.execute("SELECT outcome, detail FROM taximeter.notice_tries ORDER BY id DESC LIMIT 1").fetchone()


def test_a_notice_arrives_signed_by_standard_webhooks(receiver, target, put, deliverer, states):
    secret = target(receiver.url + "?room=1").secret
    put("low")
    assert deliverer.run() == 1
    (request,) = receiver.requests
    assert request.verified(secret) == request.notice
    assert set(request.notice) == {"type", "timestamp", "data"}
    assert request.notice["data"]["workspace"] == "acme"
    assert (request.path, request.headers["content-type"]) == ("/hook?room=1", "application/json")
    with pytest.raises(WebhookVerificationError):
        request.verified("whsec_" + base64.b64encode(bytes(32)).decode())
    assert states() == ["delivered"]
    assert deliverer.run() == 0


def test_both_secrets_sign_during_a_rotation(conn, receiver, target, put, deliverer):
    added = target(receiver.url)
    row = targets.get(conn, added.target_id)
    new = targets.rotate(conn, row, None, "olga")
    put("low")
    deliverer.run()
    conn.execute("UPDATE taximeter.notice_targets SET secret_before_until = now()")
    put("insufficient")
    deliverer.run()
    during, after = receiver.requests
    assert during.verified(added.secret) == during.verified(new)
    assert after.verified(new)
    with pytest.raises(WebhookVerificationError):
        after.verified(added.secret)


def test_addresses_and_secrets_are_stored_encrypted(conn, database_url, receiver, put, settings, states):
    masters = master_keys.parse(master_keys.new())
    new = targets.NewTarget(channel="webhook", address=receiver.url, workspace_id="acme", allow_private=True)
    secret = targets.add(conn, new, masters, "olga").secret
    stored = conn.execute("SELECT address, secret FROM taximeter.notice_targets").fetchone()
    assert receiver.url.encode() not in stored[0]
    assert secret.encode() not in stored[1]
    put("low")
    Deliverer(settings, Metrics()).run()  # without the key it can do nothing, and breaks nothing
    assert (states(), receiver.requests) == (["pending"], [])
    conn.execute("UPDATE taximeter.notice_lanes SET leased_until = now()")
    Deliverer(replace(settings, master_key=masters), Metrics()).run()
    assert receiver.requests[0].verified(secret)
    with pytest.raises(MasterKeyError):
        targets.rotate(conn, targets.listed(conn)[0], None, "olga")


def test_a_rotation_of_master_keys_takes_targets_along(conn, receiver, put, settings):
    old, new = master_keys.new(), master_keys.new()
    target = targets.NewTarget(channel="webhook", address=receiver.url, workspace_id="acme", allow_private=True)
    secret = targets.add(conn, target, master_keys.parse(old), "olga").secret
    current = master_keys.parse(new)
    assert rotation.rotate(conn, current) == rotation.Rotated(0, 1)
    assert rotation.rotate(conn, master_keys.parse(f"{new},{old}")) == rotation.Rotated(1, 0)
    assert rotation.names(conn) == {current.current: 1}
    put("low")
    Deliverer(replace(settings, master_key=current), Metrics()).run()
    assert receiver.requests[0].verified(secret)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(conn, receiver, target, put, deliverer, states, status):
    elsewhere = Receiver()
    with contextlib.closing(elsewhere):
        receiver.answer = lambda _request: (status, {"location": elsewhere.url})
        target(receiver.url)
        put("low")
        deliverer.run()
        assert (elsewhere.requests, states()) == ([], ["pending"])
    outcome, detail = last_try(conn)
    assert (outcome, str(status) in detail) == ("failed", True)


def test_a_receiver_that_is_gone_is_disabled(conn, receiver, target, put, deliverer, states):
    added = target(receiver.url)
    receiver.answer = lambda _request: 410
    put("low", "insufficient")
    deliverer.run()
    put("restored")
    deliverer.run()
    assert len(receiver.requests) == 1
    assert states() == ["dead", "dead"]  # the third was not written: nobody wants it
    row = targets.get(conn, added.target_id)
    assert row.disabled_at is not None
    receiver.answer = lambda _request: 200
    assert deliveries.replay(conn, row) == 2
    deliverer.run()
    assert [notice["data"]["status"] for notice in receiver.notices[1:]] == ["low", "insufficient"]
    assert targets.get(conn, added.target_id).disabled_at is None


@pytest.mark.parametrize("kind", ["silent", "trickling", "endless", "garbage", "closing"])
def test_a_receiver_that_misbehaves_costs_one_deadline(conn, target, put, deliverer, states, monkeypatch, kind):
    monkeypatch.setattr(webhook.Deadline.__init__, "__defaults__", (1.0,))
    bad = RawReceiver(getattr(notice_receivers, kind))
    with contextlib.closing(bad):
        target(bad.url)
        put("low")
        deliverer.run()
    assert (states(), last_try(conn)[0]) == (["pending"], "failed")


def test_a_port_where_nobody_listens_is_a_failure_like_others(conn, target, put, deliverer, states):
    bad = RawReceiver(notice_receivers.closing)
    bad.close()
    target(bad.url)
    put("low")
    deliverer.run()
    assert (states(), last_try(conn)[0]) == (["pending"], "failed")


def test_retry_after_is_heeded(conn, receiver, target, put, deliverer):
    receiver.answer = lambda _request: (429, {"retry-after": "600"})
    target(receiver.url)
    put("low")
    deliverer.run()
    wait = "SELECT extract(epoch FROM due_at - now())::int FROM taximeter.notice_lanes"
    assert 500 < conn.execute(wait).fetchone()[0] <= 600
    assert not deliveries.is_due(conn)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.1", "0x7f000001"])
def test_private_addresses_are_refused_as_they_are_connected_to(conn, target, put, deliverer, states, receiver, host):
    """Whatever was checked when the target was made: a name may lead elsewhere by now."""
    port = receiver.url.split(":")[2].split("/")[0]
    target(f"http://{host}:{port}/hook")
    conn.execute("UPDATE taximeter.notice_targets SET allow_private = false")
    put("low")
    deliverer.run()
    assert (receiver.requests, states()) == ([], ["pending"])
    outcome, detail = last_try(conn)
    assert outcome == "refused"
    assert host not in detail


def test_a_name_that_leads_to_public_and_private_addresses_is_refused(
    conn, target, put, deliverer, receiver, monkeypatch
):
    """Nor is it asked twice: what is connected to is what was checked."""
    asked = []

    def resolve(host, port, **_):
        asked.append(host)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("93.184.215.14", "127.0.0.1")
        ]

    target(f"http://rebinding.example:{receiver.url.split(':')[2].split('/')[0]}/hook")
    conn.execute("UPDATE taximeter.notice_targets SET allow_private = false")
    put("low")
    monkeypatch.setattr(webhook.socket, "getaddrinfo", resolve)
    deliverer.run()
    assert receiver.requests == []
    assert last_try(conn)[0] == "refused"
    assert asked.count("rebinding.example") == 1


def test_a_network_can_be_allowed_for_all(conn, target, put, receiver, settings):
    allowed = replace(settings, notice_networks=(ipaddress.ip_network("127.0.0.0/8"),))
    target(receiver.url)
    conn.execute("UPDATE taximeter.notice_targets SET allow_private = false")
    put("low")
    Deliverer(allowed, Metrics()).run()
    assert len(receiver.requests) == 1


def test_the_log_of_tries_quotes_no_address_and_no_answer(conn, target, put, deliverer, make_due):
    def answering(sock, _ended):
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 500 secret-answer\r\n\r\nsecret-body")

    bad = RawReceiver(answering)
    with contextlib.closing(bad):
        target(bad.url + "/secret-path")
        put("low")
        deliverer.run()
    make_due()
    deliverer.run()
    details = [detail for (detail,) in conn.execute("SELECT detail FROM taximeter.notice_tries")]
    assert len(details) == 2
    assert not any("secret" in detail or "127.0.0.1" in detail for detail in details)
