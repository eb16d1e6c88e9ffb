"""The same messages, decoder, price book, SQL and flags, with dramatiq in place of our consumer: one actor call a message.

Written to do its best: the queue is ours (a quorum queue), the body reaches the actor as it came, without JSON within JSON,
results, retries with back-off and other middleware that costs something are left out, and each thread keeps its connection.

Run by ``dramatiq benchmarks.dramatiq_actors --processes 2 --threads 2``.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.encoder import Encoder, MessageData

from taximeter import names
from taximeter_db import connect
from taximeter_worker.consume.batch import Booker, Prices
from taximeter_worker.consume.brokers.source import Message
from taximeter_worker.flags.writer import FlagWriter
from taximeter_worker.metrics import Metrics
from taximeter_worker.pricing.loading import load_book
from taximeter_worker.settings import Settings


class RawEncoder(Encoder):
    """A message's body is the actor's only argument, as it came."""

    def encode(self, data: MessageData) -> bytes:
        raise NotImplementedError

    def decode(self, data: bytes) -> MessageData:
        return {
            "queue_name": names.USAGE_QUEUE,
            "actor_name": "book",
            "args": (data,),
            "kwargs": {},
            "options": {},
            "message_id": "",
            "message_timestamp": 0,
        }


class SharedQueueBroker(RabbitmqBroker):
    """Consumes a queue that somebody else declared."""

    def _declare_queue(self, queue_name: str) -> Any:
        return self.channel.queue_declare(queue=queue_name, passive=True)


dramatiq.set_encoder(RawEncoder())
broker = SharedQueueBroker(url=os.environ["TAXIMETER_BROKER_URL"], middleware=[])
dramatiq.set_broker(broker)
_local = threading.local()
_lock = threading.Lock()
_booker: Booker | None = None


def booker() -> Booker:
    """One a process, as in our worker, made after the fork."""
    global _booker  # noqa: PLW0603
    with _lock:
        if _booker is None:
            settings = Settings.from_env()
            prices = Prices()
            with connect.connection(settings.database_url) as conn:
                prices.use(load_book(conn))
            writer = FlagWriter(settings.flags_redis_url, settings.redis_timeout_seconds)
            _booker = Booker(settings, prices, writer, Metrics())
        return _booker


@dramatiq.actor(queue_name=names.USAGE_QUEUE)
def book(body: bytes) -> None:
    """Decode, price, book, flag; dramatiq acknowledges when it returns."""
    if not hasattr(_local, "conn"):
        _local.conn = connect.booking_connection(os.environ["TAXIMETER_DATABASE_URL"])
    mine = booker()
    mine.book(_local.conn, mine.decode([Message(body, names.CONTENT_TYPE_BATCH, names.USAGE_QUEUE, 0.0)]))
