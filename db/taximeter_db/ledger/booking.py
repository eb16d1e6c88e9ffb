"""Booking: the one way in which a balance changes.

`book` takes a batch through one transaction (payments and usages in one each): claim idempotency keys, move the
balances, append to the log, quarantine what cannot be booked, commit. Called again with the same events it changes
nothing, so a worker may die at any point and be handed the batch again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Final

from psycopg import Connection

from taximeter_db.ledger import payments as payments_ledger
from taximeter_db.ledger import usages as usages_ledger
from taximeter_db.ledger.common import state_from_row
from taximeter_db.ledger.context import BookingContext
from taximeter_db.ledger.events import Outcome, Payment, Rejected, Usage, WorkspaceState
from taximeter_db.ledger.isolation import Isolation
from taximeter_db.ledger.retry import Retry
from taximeter_db.sql import statement

_READ_STATES = statement("read_states")
_DEFAULTS: Final = BookingContext()


def book(
    conn: Connection[Any],
    usages: Sequence[Usage],
    payments: Sequence[Payment] = (),
    rejected: Sequence[Rejected] = (),
    context: BookingContext = _DEFAULTS,
) -> Outcome:
    """Book a batch, exactly once.

    Args:
        conn: From `taximeter_db.connect.booking_connection`; in autocommit mode, outside a transaction.
        usages: Priced usages, in the order in which they are to be numbered within their workspaces.
        payments: Payments; booked before the usages.
        rejected: What could not be decoded or priced; quarantined in the same transaction as the usages.
        context: How they are booked.

    Returns:
        What became of them, after the commit.

    Raises:
        SchemaError: The database's schema is not the one that this version knows; nothing was quarantined for it.
        psycopg.OperationalError: The database went away; nothing is known of the last transaction. Call again with the
            same batch on a new connection.
    """
    outcome = Outcome()
    if payments:
        _book_payments(conn, payments, context, outcome)
    if usages or rejected:
        _book_usages(conn, usages, rejected, context, outcome)
    return outcome


def _book_payments(
    conn: Connection[Any], payments: Sequence[Payment], context: BookingContext, outcome: Outcome
) -> None:
    transact = partial(payments_ledger.transact, conn, context, outcome)
    Isolation(Retry(conn, context, outcome, transact)).book(payments, ())


def _book_usages(
    conn: Connection[Any],
    usages: Sequence[Usage],
    rejected: Sequence[Rejected],
    context: BookingContext,
    outcome: Outcome,
) -> None:
    transact = partial(usages_ledger.transact, conn, context, outcome)
    Isolation(Retry(conn, context, outcome, transact)).book(usages, rejected)


def read_states(conn: Connection[Any], workspace_ids: Iterable[str]) -> list[WorkspaceState]:
    """The committed states of these workspaces, as a flag writer needs them; unknown ones are left out."""
    rows = conn.execute(_READ_STATES, {"workspace_ids": list(workspace_ids)}).fetchall()
    return [state_from_row(row) for row in rows]
