"""Celery's side of the broker: the queue of tasks, and what Celery by itself would do wrong on a cluster of RabbitMQ.

On RabbitMQ the queue is a quorum queue, which survives a node. Celery notices that and limits its prefetch by consumer, as quorum
queues want it. It would also declare 28 queues for tasks with a delay, which the only delayed tasks here (those that found a lock
taken) do not need: a worker holds them for these five seconds.
"""

from __future__ import annotations

import logging
from typing import Any, ClassVar, assert_never

from celery.app.amqp import AMQP
from celery.worker.consumer import Consumer
from kombu.entity import Exchange, Queue

from taximeter import names
from taximeter.addresses import BrokerKind
from taximeter_worker.broker_connection import BrokerConnection
from taximeter_worker.settings import Settings


class TaskAmqp(AMQP):
    """Celery's publishing and consuming over the worker's kind of connection."""

    Connection = BrokerConnection


class TaskConsumer(Consumer):
    """Celery's consumer without the queues for delays."""

    class Blueprint(Consumer.Blueprint):
        """Its steps."""

        default_steps: ClassVar[list[str]] = [
            step for step in Consumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")
        ]


def task_options(settings: Settings) -> dict[str, Any]:
    """Celery's settings of the queue and of the connections to it."""
    kind = settings.broker_kind
    match kind:
        case BrokerKind.RABBITMQ:
            return _rabbitmq_options()
        case BrokerKind.REDIS:
            return {
                "task_default_queue": names.TASK_QUEUE,
                "broker_transport_options": {
                    "socket_timeout": 10,
                    "socket_connect_timeout": 5,
                    "socket_keepalive": True,
                },
            }
        case _:
            assert_never(kind)


def _rabbitmq_options() -> dict[str, Any]:
    logging.getLogger("celery.app.base").addFilter(_tells_no_delays)
    name = names.TASK_QUORUM_QUEUE
    queue = Queue(  # type: ignore[no-untyped-call]
        name,
        Exchange(name),  # type: ignore[no-untyped-call]
        routing_key=name,
        queue_arguments=dict(names.TASK_QUEUE_ARGUMENTS),
    )
    return {
        "task_default_queue": name,
        "task_queues": (queue,),
        "broker_transport_options": {"read_timeout": 10, "write_timeout": 10, "confirm_publish": True},
    }


def _tells_no_delays(record: logging.LogRecord) -> bool:
    """Whether a line is not Celery's warning that it holds a delayed task itself."""
    return "native delayed delivery" not in record.getMessage()
