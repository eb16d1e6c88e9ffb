"""Which events of a batch the ledger's amounts have room for, by calculation instead of by trying."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import Connection

from taximeter_db.ledger import claims, payments
from taximeter_db.ledger.events import Payment, Usage
from taximeter_db.ledger.retry import Event
from taximeter_db.money import AMOUNT_LIMIT, from_numeric_text
from taximeter_db.sql import statement

_READ_TOTALS = statement("read_totals")


def split(conn: Connection[Any], events: Sequence[Event]) -> tuple[list[Event], list[Event]]:
    """The events that fit, and those that would take a balance, a total or their own column out of its range.

    In the order given: an event that does not fit is left out, and the next one is tried on what is there without it.
    Events that were booked before move nothing and fit.
    """
    workspace_ids = sorted({event.workspace_id for event in events})
    totals = {
        workspace_id: (from_numeric_text(balance), from_numeric_text(cost), from_numeric_text(paid))
        for workspace_id, balance, cost, paid in conn.execute(_READ_TOTALS, {"workspace_ids": workspace_ids})
    }
    booked = _booked(conn, events)
    within: list[Event] = []
    beyond: list[Event] = []
    for event in events:
        key = _key(event)
        if key in booked:
            within.append(event)
            continue
        cost = event.cost if isinstance(event, Usage) else 0
        paid = 0 if isinstance(event, Usage) else event.amount
        before = totals.get(event.workspace_id, (0, 0, 0))
        after: tuple[int, int, int] = (before[0] - cost + paid, before[1] + cost, before[2] + paid)
        if all(-AMOUNT_LIMIT < amount < AMOUNT_LIMIT for amount in (cost, paid, *after)):
            totals[event.workspace_id] = after
            booked.add(key)
            within.append(event)
        else:
            beyond.append(event)
    return within, beyond


def _key(event: Usage | Payment) -> tuple[str, bytes]:
    return event.workspace_id, event.key if isinstance(event, Usage) else event.payment_id.encode()


def _booked(conn: Connection[Any], events: Sequence[Event]) -> set[tuple[str, bytes]]:
    usages = [event for event in events if isinstance(event, Usage)]
    paid = [event for event in events if isinstance(event, Payment)]
    known = set(claims.read_fingerprints(conn, usages)) if usages else set()
    return known | ({(name, payment_id.encode()) for name, payment_id in payments.read(conn, paid)} if paid else set())
