"""When AI went off and on, and what did it."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
from psycopg import Connection

from taximeter_db import money

LIMIT_MAX = 1_000
# A usage carries the very time of its change: with it the join finds the partition by key.
_ROWS = """
SELECT c.id, c.changed_at, c.status_before, c.status_after, c.balance_after::text, c.minimum_balance::text,
       c.low_balance_threshold::text, c.entry, c.cause, c.cause_seq, c.cause_id, u.tool,
       coalesce(-u.cost, p.amount)::text
FROM taximeter.status_changes AS c
LEFT JOIN taximeter.usages AS u
  ON c.cause = 'usage' AND u.workspace_id = c.workspace_id AND u.seq = c.cause_seq AND u.recorded_at = c.changed_at
LEFT JOIN taximeter.payments AS p
  ON c.cause = 'payment' AND p.workspace_id = c.workspace_id AND p.payment_id = c.cause_id
WHERE c.workspace_id = %(workspace_id)s
"""
_LATEST = _ROWS + " AND (%(before)s::bigint IS NULL OR c.id < %(before)s) ORDER BY c.id DESC LIMIT %(limit)s"
_BETWEEN = (
    _ROWS
    + " AND c.changed_at >= %(start)s AND c.changed_at < %(end)s ORDER BY c.changed_at DESC, c.id DESC LIMIT %(limit)s"
)
_SWITCHED_OFF = _ROWS + " AND c.status_after = 'insufficient' ORDER BY c.id DESC LIMIT 1"


class StatusRow(msgspec.Struct, frozen=True):
    """A change of status. Amounts in picodollars; `amount` is what the usage or payment moved the balance by, signed.

    `cause` is ``usage``, ``payment`` or ``settings``; `cause_id` an event id, a payment id, or who set the settings.
    """

    id: int
    changed_at: dt.datetime
    before: str
    after: str
    balance: int
    minimum: int
    low: int
    entry: int
    cause: str
    cause_seq: int | None
    cause_id: str | None
    tool: str | None
    amount: int | None

    @property
    def flipped(self) -> bool:
        """Whether AI went off or on with it."""
        return "insufficient" in {self.before, self.after}


def latest(conn: Connection[Any], workspace_id: str, *, before: int | None = None, limit: int = 50) -> list[StatusRow]:
    """The newest changes first, those with an id below `before` where it is given; at most `LIMIT_MAX`."""
    return _read(conn, _LATEST, {"workspace_id": workspace_id, "before": before, "limit": min(limit, LIMIT_MAX)})


def between(
    conn: Connection[Any], workspace_id: str, start: dt.datetime, end: dt.datetime, limit: int = LIMIT_MAX
) -> list[StatusRow]:
    """The changes of a period, newest first, at most `limit`."""
    values = {"workspace_id": workspace_id, "start": start, "end": end, "limit": min(limit, LIMIT_MAX)}
    return _read(conn, _BETWEEN, values)


def switched_off_by(conn: Connection[Any], workspace_id: str) -> StatusRow | None:
    """The change that switched AI off last; None where it never was, or was before changes were kept."""
    found = _read(conn, _SWITCHED_OFF, {"workspace_id": workspace_id})
    return found[0] if found else None


def kept_since(conn: Connection[Any]) -> dt.datetime:
    """From when on the log of changes is complete."""
    # an aggregate always returns a row
    (since,) = conn.execute("SELECT min(status_changes_since) FROM taximeter.ledger_state").fetchone()  # type: ignore[misc]
    return since  # type: ignore[no-any-return]


def _read(conn: Connection[Any], query: str, values: dict[str, Any]) -> list[StatusRow]:
    number = money.from_numeric_text
    return [
        StatusRow(
            change_id,
            at,
            before,
            after,
            number(balance),
            number(minimum),
            number(low),
            entry,
            cause,
            cause_seq,
            cause_id,
            tool,
            None if amount is None else number(amount),
        )
        for (
            change_id,
            at,
            before,
            after,
            balance,
            minimum,
            low,
            entry,
            cause,
            cause_seq,
            cause_id,
            tool,
            amount,
        ) in conn.execute(query, values)
    ]
