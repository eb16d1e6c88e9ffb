"""What RabbitMQ gave up on is not given up a second time: a delivery limit of our own on every queue, old ones included."""

from __future__ import annotations

import json
from pathlib import Path

import amqp
import pytest
from kombu import Connection

from taximeter import names

ROOT = Path(__file__).parents[2]
DEFINITIONS = json.loads((ROOT / "deploy/rabbitmq/definitions.in.json").read_text())
DELIVERIES = 25


def _policy(node, vhost: str, policy: dict) -> None:
    settings = {"pattern": policy["pattern"], "definition": policy["definition"], "priority": policy["priority"]}
    node.api("PUT", f"policies/{vhost}/{policy['name']}", {**settings, "apply-to": policy["apply-to"]})


def _survives(channel, queue: str) -> bool:
    """Whether a message is still there after that many consumers have died with it."""
    channel.basic_publish(amqp.Message(b"x"), routing_key=queue)
    for _ in range(DELIVERIES):
        message = channel.basic_get(queue)
        for _ in range(200):
            if message is not None:
                break
            message = channel.basic_get(queue)
        if message is None:
            return False
        channel.basic_reject(message.delivery_tag, requeue=True)
    return True


def test_every_queue_that_a_worker_declares_names_its_limit():
    for arguments in (names.QUEUE_ARGUMENTS, names.DEAD_QUEUE_ARGUMENTS):
        assert arguments["x-queue-type"] == "quorum"
        assert arguments["x-delivery-limit"] >= 1000
    assert "x-dead-letter-exchange" in names.QUEUE_ARGUMENTS


@pytest.mark.parametrize("existing", [False, True])
def test_the_dead_queue_keeps_a_message_through_any_number_of_deaths(amqp_url, rabbitmq, existing):
    """A queue of an earlier version names no limit, and RabbitMQ 4 then sets 20. Here a policy stands in for that."""
    vhost = amqp_url.rpartition("/")[2]
    rabbitmq_4 = {"name": "default", "pattern": ".*", "definition": {"delivery-limit": 20}, "priority": 0}
    with Connection(amqp_url) as connection:
        channel = connection.default_channel
        arguments = {"x-queue-type": "quorum"} if existing else dict(names.DEAD_QUEUE_ARGUMENTS)
        channel.queue_declare(names.DEAD_QUEUE, durable=True, auto_delete=False, arguments=arguments)
        if existing:
            _policy(rabbitmq, vhost, {**rabbitmq_4, "apply-to": "queues"})
            assert not _survives(channel, names.DEAD_QUEUE), "lost for good: what the shipped policy is for"
            [shipped] = [policy for policy in DEFINITIONS["policies"] if policy["name"] == "taximeter-dead"]
            _policy(rabbitmq, vhost, shipped)
        assert _survives(channel, names.DEAD_QUEUE)
