"""Workers as real processes, and the events they are fed, for the tests of the worker and of the whole system."""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import amqp
import psycopg
import redis
from kombu import Connection

from cloud_events import now_text, payment_event, usage_event
from taximeter import names
from taximeter_db.audit.verify import verify
from taximeter_db.connect import connection
from taximeter_db.prices.changes import set_price
from taximeter_db.prices.store import Price, Target

PER_TOKEN_PICO = 1_000_000
"""What the tests' price book asks for a token of model m: 1 USD per million."""


def usage(
    workspace: str = "acme", tokens: int = 1000, *, event_id: str | None = None, model: str = "m", **data: Any
) -> dict[str, Any]:
    """A usage event. 1,000 tokens of model m cost 0.001 USD with ``set_prices``."""
    data = {"provider": "p", "model": model, "quantities": {"input_tokens": tokens}, **data}
    return usage_event(workspace, event_id, time=now_text(), **data)


def payment(workspace: str, amount: str, *, payment_id: str | None = None, kind: str = "top_up") -> dict[str, Any]:
    """A payment event."""
    return payment_event(workspace, amount, payment_id, time=now_text(), kind=kind)


def set_prices(database_url: str, model: str = "m") -> None:
    """Price model ``model``: 1 USD per million input tokens, since long ago."""
    price = Price(target=Target(None, "p", model), unit="input_tokens", amount=Decimal(1), per=Decimal(1_000_000))
    with connection(database_url) as conn:
        set_price(conn, price)


class Feed:
    """Publishes to either kind of broker, raw, as a producer in any language would."""

    def __init__(self, url: str) -> None:
        self._redis: redis.Redis | None = None
        self._channel: Any = None
        if url.startswith("amqp"):
            self._connection = Connection(url)
            self._connection.connect()
            self._channel = self._connection.connection.channel()
            self._channel.confirm_select()
            declare(self._channel)
        else:
            self._redis = redis.Redis.from_url(url)

    def send(self, *events: Mapping[str, Any], queue: str = names.USAGE_QUEUE) -> None:
        """One message with all events."""
        self.send_raw(json.dumps(events).encode(), names.CONTENT_TYPE_BATCH, queue)

    def send_each(self, events: Sequence[Mapping[str, Any]], queue: str = names.USAGE_QUEUE) -> None:
        """A message for each event."""
        for event in events:
            self.send_raw(json.dumps(event).encode(), names.CONTENT_TYPE_EVENT, queue)

    def pay(self, *events: Mapping[str, Any]) -> None:
        """One message with all payments."""
        self.send(*events, queue=names.PAYMENT_QUEUE)

    def send_raw(self, body: bytes, content_type: str | None, queue: str = names.USAGE_QUEUE) -> None:
        """Bytes as they are."""
        if self._redis is not None:
            self._redis.lpush(queue, body)
            return
        properties = {"delivery_mode": 2, **({"content_type": content_type} if content_type else {})}
        message = amqp.Message(body, **properties)
        key = names.USAGE_ROUTING_KEY if queue == names.USAGE_QUEUE else names.PAYMENT_ROUTING_KEY
        self._channel.basic_publish(message, exchange=names.EXCHANGE, routing_key=key, mandatory=True)

    def waiting(self, queue: str = names.USAGE_QUEUE) -> int:
        """Messages in the broker that no worker has yet."""
        if self._redis is not None:
            return int(self._redis.llen(queue))
        return int(self._channel.queue_declare(queue, passive=True).message_count)

    def unacknowledged(self) -> int:
        """Messages taken and not yet acknowledged (Redis alone can tell at once)."""
        assert self._redis is not None
        return sum(self._redis.llen(key) for key in self._redis.scan_iter(match="*:processing:*"))

    def close(self) -> None:
        if self._redis is not None:
            self._redis.close()
        else:
            self._connection.collect(socket_timeout=1)  # polite or not, whatever the node is doing


class ConfirmedChannel:
    """Publishes single messages to RabbitMQ; `wait` returns once the broker has confirmed them all.

    What is not confirmed may be lost when the connection is closed: a quorum queue whose leader is not known yet keeps
    messages in the channel's process.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._channel = connection.default_channel
        self._channel.confirm_select()
        self._sent = 0
        self._unconfirmed: set[int] = set()
        self._channel.events["basic_ack"].add(self._confirmed)
        declare(self._channel)

    def publish(self, message: amqp.Message, routing_key: str = names.USAGE_ROUTING_KEY) -> None:
        """Hand one message to the broker."""
        self._sent += 1
        self._unconfirmed.add(self._sent)
        self._channel.basic_publish(message, exchange=names.EXCHANGE, routing_key=routing_key, mandatory=True)

    def _confirmed(self, tag: int, multiple: bool) -> None:
        self._unconfirmed -= {sent for sent in self._unconfirmed if sent <= tag} if multiple else {tag}

    def wait(self) -> None:
        """Wait until every message is in its queue."""
        while self._unconfirmed:
            self._connection.drain_events(timeout=60)


@contextlib.contextmanager
def confirmed_channel(url: str) -> Iterator[ConfirmedChannel]:
    """A channel that is closed once all that was published is confirmed."""
    with Connection(url) as connection:
        channel = ConfirmedChannel(connection)
        yield channel
        channel.wait()


def declare(channel: Any) -> None:
    """The contract's topology."""
    channel.exchange_declare(names.EXCHANGE, "topic", durable=True, auto_delete=False)
    channel.exchange_declare(names.DEAD_EXCHANGE, "fanout", durable=True, auto_delete=False)
    for queue, key in ((names.USAGE_QUEUE, names.USAGE_ROUTING_KEY), (names.PAYMENT_QUEUE, names.PAYMENT_ROUTING_KEY)):
        channel.queue_declare(queue, durable=True, auto_delete=False, arguments=dict(names.QUEUE_ARGUMENTS))
        channel.queue_bind(queue, names.EXCHANGE, key)


class WorkerProcess:
    """``celery -A taximeter_worker worker`` in a process of its own; ``prefix`` stands before its command."""

    def __init__(self, environment: Mapping[str, str], log: Path, prefix: Sequence[str] = ()) -> None:
        self._environment = dict(environment)
        self._prefix = prefix
        self.log = log
        self.metrics_port = int(environment.get("TAXIMETER_METRICS_PORT", "0"))
        self.options = [
            "--loglevel=INFO",
            "--without-mingle",
            "--without-gossip",
            "-n",
            f"w{secrets.token_hex(4)}@tests",
        ]
        self._connected_before = 0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **more: str) -> WorkerProcess:
        self._connected_before = self._connects()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._prefix, sys.executable, "-m", "celery", "-A", "taximeter_worker", "worker", *self.options],
                env={"PYTHONFAULTHANDLER": "1", **self._environment, **more},
                stdout=log,
                stderr=log,
            )
        return self

    def _connects(self) -> int:
        return self.text().count("broker_connected") if self.log.exists() else 0

    @property
    def connected(self) -> bool:
        """Whether it has received from the broker since it was started."""
        return self._connects() > self._connected_before

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)

    def wait(self, seconds: float = 30.0) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def stop(self, seconds: float = 30.0) -> int:
        """SIGTERM; returns the exit code. One that does not end writes the stacks of its threads to its log."""
        self.signal(signal.SIGTERM)
        try:
            return self.wait(seconds)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGABRT)
            self.wait(10)
            raise AssertionError(f"it does not end on SIGTERM:\n{self.text()[-20000:]}") from None

    def metrics(self) -> dict[str, float]:
        """Samples of /metrics by name and labels as they are written."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def text(self) -> str:
        return self.log.read_text(errors="replace")


class Ledger:
    """What the database says, for asserting."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._conn = psycopg.connect(url, autocommit=True)

    def one(self, query: str, *values: Any) -> Any:
        row = self._conn.execute(query, list(values)).fetchone()
        return row[0] if row else None

    @property
    def usages(self) -> int:
        return int(self.one("SELECT count(*) FROM taximeter.usages"))

    @property
    def duplicates(self) -> int:
        return int(self.one("SELECT coalesce(sum(duplicate_count), 0) FROM taximeter.workspaces"))

    def balance(self, workspace: str) -> str | None:
        found = self.one(
            "SELECT trim_scale(balance)::text FROM taximeter.workspaces WHERE workspace_id = %s", workspace
        )
        return None if found is None else str(found)

    def quarantined(self) -> dict[str, int]:
        query = "SELECT reason, count(*) FROM taximeter.quarantine WHERE resolved_at IS NULL GROUP BY 1"
        return dict(self._conn.execute(query).fetchall())

    def verify(self) -> None:
        report = verify(self._conn)
        assert report.ok, [fault.sentence for fault in report.faults]

    def close(self) -> None:
        self._conn.close()
