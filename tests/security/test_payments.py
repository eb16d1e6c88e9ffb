"""Whoever may send usage makes no money: a payment counts only where it was sent as one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import amqp
import pytest
import redis
from kombu import Connection

from taximeter import names
from taximeter.brokers.signing import ProducerKey
from taximeter_cli.embedded.valkey import BROKER_DATABASE, Valkey
from taximeter_db.connect import booking_connection
from taximeter_worker.consume.signatures import ProducerKeys
from taximeter_worker.runtime import Runtime
from taximeter_worker.tasks.replay import replay
from waiting import eventually
from workers import Ledger, WorkerProcess, payment, usage

CHAT = ProducerKey("chat", "c" * 64)


def _publish(
    url: str,
    events: Any,
    routing_key: str,
    content_type: str,
    properties: Mapping[str, str] = MappingProxyType({}),
    **headers: list[str],
) -> None:
    with Connection(url) as connection:
        connection.connect()
        channel = connection.connection.channel()
        channel.confirm_select()
        message = amqp.Message(
            json.dumps(events), content_type=content_type, delivery_mode=2, application_headers=headers, **properties
        )
        channel.basic_publish(message, exchange=names.EXCHANGE, routing_key=routing_key, mandatory=True)
        channel.wait(amqp.spec.Basic.Ack)


def test_on_rabbitmq_a_tool_credits_nothing(
    rabbitmq_user: Callable[[str], str],
    new_worker: Callable[..., WorkerProcess],
    priced_url: str,
    redis_url: str,
    ledger: Ledger,
):
    worker = new_worker(priced_url, rabbitmq_user("worker"), redis_url).start()
    eventually(lambda: worker.connected)
    tool, forged = rabbitmq_user("tool"), iter(payment("acme", str(amount)) for amount in range(1000, 1009))
    batch, single = names.CONTENT_TYPE_BATCH, names.CONTENT_TYPE_EVENT
    _publish(tool, [usage(), next(forged)], names.USAGE_ROUTING_KEY, batch)
    _publish(tool, next(forged), names.USAGE_ROUTING_KEY, single)
    _publish(tool, next(forged), "usage.0", "application/json", CC=[names.USAGE_ROUTING_KEY])
    # RabbitMQ lets these into the queue of payments: it asks for the right to the routing key alone
    for header in ("CC", "BCC"):
        _publish(tool, [usage(), next(forged)], names.USAGE_ROUTING_KEY, batch, **{header: [names.PAYMENT_ROUTING_KEY]})
    _publish(rabbitmq_user("billing"), [payment("acme", "5")], names.PAYMENT_ROUTING_KEY, batch)
    eventually(lambda: ledger.balance("acme") == "4.997", what="three usages and the only payment")
    eventually(lambda: ledger.quarantined() == {"wrong_queue": 5}, what="what the tool forged")
    ledger.verify()


def test_on_rabbitmq_a_replay_of_what_was_given_up_credits_nothing_either(
    rabbitmq_user: Callable[[str], str],
    new_worker: Callable[..., WorkerProcess],
    priced_url: str,
    redis_url: str,
    ledger: Ledger,
):
    """A tool can have a message given up, so that an operator finds it among those to be replayed unseen."""
    worker = new_worker(priced_url, rabbitmq_user("worker"), redis_url).start()
    eventually(lambda: worker.connected)
    assert worker.stop() == 0
    batch, sent = names.CONTENT_TYPE_BATCH, {"expiration": "1"}
    _publish(rabbitmq_user("tool"), [usage(), payment("acme", "1000")], names.USAGE_ROUTING_KEY, batch, sent)
    for header in ("CC", "BCC"):
        events = [payment("acme", "1001")]
        _publish(
            rabbitmq_user("tool"),
            events,
            names.USAGE_ROUTING_KEY,
            batch,
            sent,
            **{header: [names.PAYMENT_ROUTING_KEY]},
        )
    _publish(rabbitmq_user("billing"), [payment("acme", "5")], names.PAYMENT_ROUTING_KEY, batch, sent)
    worker.start()
    eventually(lambda: ledger.quarantined() == {"delivery_limit": 4}, what="all that ran out, each kept once")
    with booking_connection(priced_url) as conn:
        found = conn.execute("SELECT id FROM taximeter.quarantine WHERE reason = 'delivery_limit' ORDER BY id")
        replayed = replay(conn, [row[0] for row in found])
    assert sorted(one.result for one in replayed) == ["booked", "booked", "kept", "kept"]
    assert {one.reason for one in replayed} == {None, "wrong_queue"}
    assert ledger.balance("acme") == "4.999"


@pytest.mark.parametrize("signs", [False, True], ids=["unsigned", "signed"])
def test_on_valkey_a_tool_credits_nothing(
    new_runtime: Callable[..., Runtime],
    valkey: Valkey,
    as_user: Callable[..., redis.Redis],
    ledger: Ledger,
    priced_url: str,
    signs: bool,
):
    new_runtime(valkey.url(BROKER_DATABASE), **({"producer_keys": ProducerKeys({CHAT.key_id: CHAT})} if signs else {}))
    body = json.dumps([usage(), payment("acme", "1000000", payment_id="forged")]).encode()
    tool = as_user("tool", BROKER_DATABASE)
    tool.lpush(names.USAGE_QUEUE, CHAT.sign(names.USAGE_QUEUE, body) if signs else body)
    eventually(lambda: ledger.usages == 1)
    assert ledger.balance("acme") == "-0.001"
    assert ledger.quarantined() == {"wrong_queue": 1}
    with booking_connection(priced_url) as conn:
        query = "SELECT id, kind, workspace_id, event_id FROM taximeter.quarantine"
        (entry, *known) = conn.execute(query).fetchone() or ()
        assert known == ["payment", "acme", "forged"]
        # an operator who knows where it comes from books it by hand
        assert [one.result for one in replay(conn, [entry])] == ["booked"]
