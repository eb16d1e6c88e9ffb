"""The queue that tasks came through on RabbitMQ up to 0.1.0: a classic one, on one node.

Workers of 0.1.0 declare it, send to it and consume it. What they leave in it is moved to the queue of today as soon as none of
them is there, and the queue is deleted. Each worker looks; two that look at the same time do no harm.
"""

from __future__ import annotations

from typing import Any

import amqp
import structlog
from celery import bootsteps
from celery.worker.consumer.tasks import Tasks

from taximeter import names
from taximeter.addresses import BrokerKind
from taximeter_worker.settings import Settings

log = structlog.get_logger(__name__)

LOOK_SECONDS = 10.0


class OldQueueStep(bootsteps.StartStopStep):
    """Looks at the old queue when Celery's consumer has connected, and every ten seconds."""

    requires = (Tasks,)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._entry: Any = None
        self._refusal = ""

    def include_if(self, consumer: Any) -> bool:
        """On RabbitMQ alone: a list in Redis has no type."""
        settings: Settings = consumer.app.taximeter_settings
        return settings.broker_kind is BrokerKind.RABBITMQ

    def start(self, consumer: Any) -> None:
        """Look, and go on looking while the consumer is connected."""
        self._look(consumer)
        self._entry = consumer.timer.call_repeatedly(LOOK_SECONDS, self._look, (consumer,))

    def stop(self, consumer: Any) -> None:  # noqa: ARG002 -- Celery's signature
        """Look no more."""
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None

    def _look(self, consumer: Any) -> None:
        # A channel of its own: the broker closes it where the queue is not there.
        channel = consumer.connection.channel()
        try:
            moved = move_tasks(channel)
        except amqp.NotFound:
            return  # or its node is away, and then it is there again later
        except amqp.ChannelError as error:
            if self._refusal != str(error):
                self._refusal = str(error)
                log.warning("old_task_queue_left", queue=names.TASK_QUEUE, broker_says=error.reply_text)
            return
        finally:
            channel.close()
        if moved is not None:
            log.info("old_task_queue_deleted", queue=names.TASK_QUEUE, tasks_moved=moved)


def move_tasks(channel: Any) -> int | None:
    """Move what the old queue holds and delete it; returns how many tasks that was, None if it is still consumed.

    Args:
        channel: Of a connection that waits for confirms.

    Raises:
        amqp.NotFound: There is no such queue.
    """
    if channel.queue_declare(names.TASK_QUEUE, passive=True).consumer_count:
        return None
    moved = 0
    while (message := channel.basic_get(names.TASK_QUEUE)) is not None:
        channel.basic_publish(message, routing_key=names.TASK_QUORUM_QUEUE, mandatory=True)
        channel.basic_ack(message.delivery_tag)
        moved += 1
    channel.queue_delete(names.TASK_QUEUE, if_unused=True, if_empty=True)
    return moved
