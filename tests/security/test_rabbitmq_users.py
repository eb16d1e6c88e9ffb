"""RabbitMQ's users, on a real node: a tool may append usage, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import amqp
import pytest
from kombu import Connection

from taximeter import Meter, names
from waiting import eventually
from workers import Ledger, WorkerProcess, payment, usage

QUANTITIES = {"input_tokens": 1000}


@pytest.fixture
def channel(rabbitmq_user: Callable[[str], str]) -> Iterator[Callable[[str], Any]]:
    """``channel(user)``: a new channel in confirm mode (a refusal closes it)."""
    made: list[Any] = []

    def make(user: str) -> Any:
        connection = Connection(rabbitmq_user(user))
        connection.connect()
        made.append(connection)
        opened = connection.connection.channel()
        opened.confirm_select()
        return opened

    yield make
    for one in made:
        one.release()


def _publish(channel: Any, event: Any, routing_key: str, exchange: str = names.EXCHANGE, **properties: Any) -> None:
    import json

    message = amqp.Message(json.dumps([event]), content_type=names.CONTENT_TYPE_BATCH, delivery_mode=2, **properties)
    channel.basic_publish(message, exchange=exchange, routing_key=routing_key, mandatory=True)
    channel.wait(amqp.spec.Basic.Ack)


def test_each_user_does_its_work_and_no_other_s(
    rabbitmq_user: Callable[[str], str],
    channel: Callable[[str], Any],
    new_worker: Callable[..., WorkerProcess],
    priced_url: str,
    redis_url: str,
    ledger: Ledger,
    tmp_path: Path,
):
    worker = new_worker(priced_url, rabbitmq_user("worker"), redis_url).start()
    eventually(lambda: worker.connected, what="a worker with its own rights alone")

    with Meter(broker_url=rabbitmq_user("tool"), redis_url=redis_url, spool=tmp_path / "spool") as meter:
        meter.record("acme", tool="chat", provider="p", model="m", quantities=QUANTITIES)
        meter.flush(timeout=20)
    _publish(channel("billing"), payment("acme", "5"), names.PAYMENT_ROUTING_KEY)
    eventually(lambda: ledger.balance("acme") == "4.999", what="usage and payment are booked")
    ledger.verify()

    tool = rabbitmq_user("tool").split("//")[1].split(":")[0]
    forbidden: list[Callable[[Any], Any]] = [
        lambda it: it.queue_declare("mine"),
        lambda it: it.exchange_declare("mine", "topic"),
        lambda it: it.exchange_delete(names.EXCHANGE),
        lambda it: it.queue_purge(names.USAGE_QUEUE),
        lambda it: it.queue_delete(names.USAGE_QUEUE),
        lambda it: it.queue_bind(names.USAGE_QUEUE, names.EXCHANGE, "#"),
        lambda it: it.basic_get(names.USAGE_QUEUE),
        lambda it: it.basic_consume(names.PAYMENT_QUEUE),
        # around the exchange, straight into queues: the tasks of Celery, and payments
        lambda it: _publish(it, usage(), names.TASK_QUORUM_QUEUE, exchange=""),
        lambda it: _publish(it, payment("acme", "9"), names.PAYMENT_QUEUE, exchange=""),
        lambda it: _publish(it, payment("acme", "9"), names.PAYMENT_ROUTING_KEY),
        lambda it: _publish(it, usage(), names.DEAD_QUEUE, exchange=names.DEAD_EXCHANGE),
    ]
    for attempt in forbidden:
        with pytest.raises(amqp.AccessRefused):
            attempt(channel("tool"))
    with pytest.raises(amqp.AccessRefused):
        _publish(channel("billing"), usage(), names.USAGE_ROUTING_KEY)
    _publish(channel("tool"), usage(), names.USAGE_ROUTING_KEY, user_id=tool)
    with pytest.raises(amqp.PreconditionFailed):
        _publish(channel("tool"), usage(), names.USAGE_ROUTING_KEY, user_id="billing")
    eventually(lambda: ledger.usages == 2)
    assert ledger.balance("acme") == "4.998"
    assert ledger.quarantined() == {}

    assert worker.stop() == 0
    with Meter(broker_url=rabbitmq_user("tool"), spool=tmp_path / "spool") as meter:
        meter.record("acme", tool="chat", provider="p", model="m", quantities=QUANTITIES)
        meter.flush(timeout=20)
    assert channel("worker").basic_get(names.USAGE_QUEUE).properties["user_id"] == tool, "the SDK says who it is"
