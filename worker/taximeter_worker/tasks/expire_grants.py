"""Books what is left of grants that have expired."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from typing import Any

from psycopg import Connection

from taximeter import names
from taximeter_db.connect import booking_connection
from taximeter_db.ledger import grants, payments
from taximeter_db.ledger.context import BookingContext
from taximeter_db.ledger.events import Outcome, Payment
from taximeter_db.ledger.grants import GrantNow
from taximeter_db.money import format_usd
from taximeter_db.queries import payments as payment_rows
from taximeter_worker.decode.message import decode_message
from taximeter_worker.flags.publisher import FlagPublisher
from taximeter_worker.flags.writer import FlagWriter
from taximeter_worker.metrics import Metrics
from taximeter_worker.settings import Settings
from taximeter_worker.tasks.definition import TaskDefinition

SECONDS = 60.0
EXPIRE_GRANTS = TaskDefinition("taximeter.expire_grants", every_seconds=SECONDS, expires_seconds=SECONDS)


def expire_due(settings: Settings, metrics: Metrics) -> int:
    """`expire_grants` on connections of its own: the task."""
    with (
        contextlib.closing(FlagWriter(settings.flags_redis_url, settings.redis_timeout_seconds)) as writer,
        contextlib.closing(booking_connection(settings.database_url)) as conn,
    ):
        return expire_grants(conn, FlagPublisher(writer, metrics))


def expire_grants(conn: Connection[Any], publisher: FlagPublisher | None = None) -> int:
    """Book the expiry of every grant whose time is over; returns how many payments that were.

    A workspace at a time, in one transaction: its row is locked, what is left is calculated, booked as `expiry` with the flag's
    debt and the notice as any payment is, and the grants are noted as settled. Run again, or by two at once, it finds nothing.
    """
    done = 0
    while due := grants.due(conn):
        for workspace_id in due:
            outcome = Outcome()
            with conn.transaction():
                expired = grants.lock_due(conn, workspace_id)
                booked = [
                    _payment(workspace_id, grant)
                    for grant in expired
                    if grant.left and payment_rows.find(conn, workspace_id, expiry_id(grant.payment_id)) is None
                ]
                if booked:
                    payments.transact(conn, BookingContext(), outcome, booked, ())
                grants.settle(conn, workspace_id, [grant.payment_id for grant in expired])
            if publisher is not None and outcome.states:
                publisher.publish(conn, list(outcome.states.values()), owed=True)
            done += outcome.payments_booked
    return done


def expiry_id(payment_id: str) -> str:
    """The id of the payment that books a grant's expiry: the same whoever books it."""
    digest = hashlib.blake2b(payment_id.encode(), digest_size=16, person=b"grant expiry").hexdigest()
    return f"expiry-{digest}"


def _payment(workspace_id: str, grant: GrantNow) -> Payment:
    """The expiry as an event, read as any other: one rule book, one fingerprint."""
    event = {
        "specversion": "1.0",
        "id": expiry_id(grant.payment_id),
        "source": "/worker",
        "type": names.PAYMENT_TYPE,
        "subject": workspace_id,
        "time": grant.expires_at.isoformat(),
        "data": {
            "amount": format_usd(-grant.left),
            "kind": grants.EXPIRY,
            "transaction": {"payment_id": grant.payment_id},
        },
    }
    decoded = decode_message(json.dumps(event).encode(), names.CONTENT_TYPE_EVENT, now=time.time_ns() // 1000)
    return decoded.payments[0]
