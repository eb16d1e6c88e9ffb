"""One worker, one broker and one database for all rows: every case is published at the start, each test looks at its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import amqp
import psycopg
from kombu import Connection
from psycopg.rows import namedtuple_row

from malformed_input.cases import BATCH, Case, good, paid
from taximeter import names
from taximeter_db.connect import connection
from taximeter_db.prices.changes import set_price
from taximeter_db.prices.store import Price, Target
from waiting import eventually
from workers import WorkerProcess, declare


class SystemUnderTest:
    """What the tests of all rows share."""

    def __init__(self, database_url: str, broker_url: str, worker: WorkerProcess, logs: Iterable[Any]) -> None:
        self.database_url = database_url
        self.broker_url = broker_url
        self.worker = worker
        self._logs = list(logs)
        self.conn = psycopg.connect(database_url, autocommit=True, row_factory=namedtuple_row)
        self._kombu = Connection(broker_url)
        self._kombu.connect()
        self._channel = self._kombu.connection.channel()
        self._channel.confirm_select()
        declare(self._channel)

    def close(self) -> None:
        self.conn.close()
        self._kombu.collect(socket_timeout=1)

    # -- in ---------------------------------------------------------------------------------------------------------

    def publish(
        self, body: bytes, content_type: str, *, payment: bool = False, headers: Iterable[tuple[str, Any]] = ()
    ) -> None:
        """One message, raw."""
        properties: dict[str, Any] = {"delivery_mode": 2, "content_type": content_type}
        given = dict(headers)
        if "content_encoding" in given:
            properties["content_encoding"] = given.pop("content_encoding")
        if given:
            properties |= {"application_headers": given, "correlation_id": "4711", "reply_to": "nobody"}
        key = names.PAYMENT_ROUTING_KEY if payment else names.USAGE_ROUTING_KEY
        self._channel.basic_publish(
            amqp.Message(body, **properties), exchange=names.EXCHANGE, routing_key=key, mandatory=True
        )

    def send(self, *events: Any, payment: bool = False) -> None:
        """One batch of events; bytes as they are."""
        body = b"[" + b",".join(one if isinstance(one, bytes) else json.dumps(one).encode() for one in events) + b"]"
        self.publish(body, BATCH, payment=payment)

    def publish_case(self, case: Case) -> None:
        """A case among its neighbours."""
        workspace, bad = case.workspace, case.bad(case.workspace)
        if case.content_type is None:
            make = paid if case.is_payment else good
            self.send(make(workspace, 1), bad, make(workspace, 2), payment=case.is_payment)
        else:
            self.send(good(workspace, 1))
            self.publish(bad, case.content_type, headers=case.headers)
            self.send(good(workspace, 2))

    # -- out --------------------------------------------------------------------------------------------------------

    def one(self, query: str, *values: Any) -> Any:
        row = self.conn.execute(query, values).fetchone()
        return row[0] if row else None

    def workspace(self, workspace: str) -> Any:
        return self.conn.execute("SELECT * FROM taximeter.workspaces WHERE workspace_id = %s", [workspace]).fetchone()

    def booked(self, workspace: str, usages: int = 0, payments: int = 0) -> Any:
        """Wait until so much is booked; returns the workspace's row."""

        def look() -> Any:
            row = self.workspace(workspace)
            return row if row and (row.usage_count, row.payment_count) == (usages, payments) else None

        return eventually(look, what=f"{usages} usages and {payments} payments of {workspace}")

    def kept(self, event: bytes) -> Any:
        """Wait for the quarantine entry of these very bytes."""
        query = "SELECT * FROM taximeter.quarantine WHERE event = %s AND resolved_at IS NULL"
        return eventually(
            lambda: self.conn.execute(query, [event]).fetchone(), what=f"a quarantine entry: {event[:200]!r}"
        )

    def refused(self, workspace: str) -> list[Any]:
        query = "SELECT * FROM taximeter.quarantine WHERE workspace_id = %s ORDER BY id"
        return self.conn.execute(query, [workspace]).fetchall()

    def logs(self) -> str:
        """Everything that worker, database, flag store and broker have logged, without terminal colours."""
        text = "\n".join(path.read_text(errors="replace") for path in self._logs if path.is_file())
        return re.sub(r"\x1b\[[0-9;]*m", "", text)


def set_prices(database_url: str) -> None:
    """m: 1 USD per million tokens, 2 from 2020 on; dear: 10^12 USD a token; tiny: half a picodollar a token."""
    import datetime as dt

    of = lambda model: Target(None, "p", model)  # noqa: E731
    since = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    with connection(database_url) as conn:
        for model, amount, per, start in (
            ("m", 1, 1_000_000, None),
            ("m", 2, 1_000_000, since),
            ("dear", 10**12, 1, None),
            ("tiny", "0.0000005", 1_000_000, None),
        ):
            price = Price(target=of(model), unit="input_tokens", amount=Decimal(amount), per=Decimal(per))
            set_price(conn, price, start=start, backdated=True)
