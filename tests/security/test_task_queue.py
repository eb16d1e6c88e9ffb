"""The queue of tasks on RabbitMQ under the shipped rights, beside workers of 0.1.0 and after them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import amqp
import pytest
from celery import Celery
from kombu import Connection

from servers.rabbitmq import RabbitMQ
from taximeter import names
from waiting import eventually
from workers import WorkerProcess

ROLLED_UP = 'taximeter_task_runs_total{outcome="succeeded",task="taximeter.roll_up"}'
FORGOT = 'taximeter_task_runs_total{outcome="succeeded",task="taximeter.forget_dismissed"}'


@pytest.fixture
def broker(rabbitmq_user: Callable[[str], str]) -> str:
    """The address of the shipped user ``worker``."""
    return rabbitmq_user("worker")


@pytest.fixture
def old_app(broker: str) -> Iterator[Celery]:
    """Sends tasks as a beat of 0.1.0 does, which declares its queue by that."""
    app = Celery("old", broker=broker, set_as_current=False)
    app.conf.update(task_default_queue="taximeter.tasks", task_ignore_result=True)
    yield app
    app.close()


def test_what_workers_of_0_1_0_leave_in_their_queue_is_done_and_the_queue_goes(
    broker: str,
    old_app: Celery,
    rabbitmq: RabbitMQ,
    new_worker: Callable[..., WorkerProcess],
    priced_url: str,
    redis_url: str,
):
    old_app.send_task("taximeter.forget_dismissed")
    with Connection(broker) as connection:
        # An old worker, which holds a task.
        channel = connection.channel()
        held: list[Any] = []
        channel.basic_consume("taximeter.tasks", callback=held.append)
        while not held:
            connection.drain_events(timeout=60)
        worker = new_worker(priced_url, broker, redis_url).start()
        eventually(lambda: worker.connected)
        eventually(lambda: worker.metrics()[ROLLED_UP] >= 1, what="its own tasks run beside the old worker's")
        old_app.send_task("taximeter.forget_dismissed")
        while len(held) < 2:
            connection.drain_events(timeout=60)
        assert worker.metrics()[FORGOT] == 0, "an old worker's tasks are its own while it is there"
    eventually(lambda: worker.metrics()[FORGOT] == 2, what="what it had not done is done")
    eventually(lambda: "old_task_queue_deleted" in worker.text())
    with Connection(broker) as connection, pytest.raises(amqp.NotFound):
        connection.channel().queue_declare("taximeter.tasks", passive=True)
    eventually(lambda: worker.metrics()[ROLLED_UP] >= 2)
    vhost = quote(urlsplit(broker).path[1:], safe="")
    queues = {queue["name"]: queue["type"] for queue in rabbitmq.api("GET", f"queues/{vhost}")}
    assert queues[names.TASK_QUORUM_QUEUE] == "quorum"
    assert not [name for name in queues if name.startswith("celery")], "none for delays, events or remote control"
    assert worker.stop() == 0
    assert "Traceback" not in worker.text()


def test_going_back_to_0_1_0_is_possible(
    broker: str, old_app: Celery, new_worker: Callable[..., WorkerProcess], priced_url: str, redis_url: str
):
    """It declares its queue again, and a worker of today that still runs does what is left there."""
    worker = new_worker(priced_url, broker, redis_url).start()
    eventually(lambda: worker.connected)
    eventually(lambda: worker.metrics()[ROLLED_UP] >= 1)
    old_app.send_task("taximeter.forget_dismissed")
    eventually(lambda: worker.metrics()[FORGOT] == 1)
    assert worker.stop() == 0


def test_celery_s_own_options_work_with_the_queue(
    amqp_url: str, new_worker: Callable[..., WorkerProcess], priced_url: str, redis_url: str
):
    """`celery -A taximeter_worker worker` as it is: with mingle, gossip and events, by a user who may all that."""
    worker = new_worker(priced_url, amqp_url, redis_url)
    worker.options = ["--loglevel=INFO", "--task-events"]
    worker.start()
    eventually(lambda: worker.connected)
    eventually(lambda: worker.metrics()[ROLLED_UP] >= 2)
    assert worker.stop() == 0
    assert "Traceback" not in worker.text()
