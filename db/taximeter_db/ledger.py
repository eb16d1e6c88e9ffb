"""Booking: the one way in which a balance changes.

`book` takes a batch through one transaction (payments and usages in one each): claim idempotency keys, move the
balances, append to the log, park what cannot be booked, commit. Called again with the same events it changes nothing,
so a worker may die at any point and be handed the batch again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg import Connection, errors

from taximeter_db import payments_ledger, rows, usages_ledger
from taximeter_db.claims import Hope
from taximeter_db.events import Outcome, Payment, Policy, Rejected, Usage, WorkspaceState, event_key, uuid_keys
from taximeter_db.ledger_common import MissingWorkspacesError, StaleKeysError, park, state_from_row
from taximeter_db.partitions import ensure
from taximeter_db.sealing import Sealer
from taximeter_db.sql import statement

__all__ = [
    "Outcome",
    "Payment",
    "Policy",
    "Rejected",
    "Usage",
    "WorkspaceState",
    "book",
    "event_key",
    "read_states",
    "uuid_keys",
]

_CREATE_WORKSPACES = statement("create_workspaces")
_READ_STATES = statement("read_states")
_ATTEMPTS_MAX = 20
_WORKSPACES_KNOWN_MAX = 200_000

Event = TypeVar("Event", Usage, Payment)
Hook = Callable[[], None]


def book(
    conn: Connection[Any],
    usages: Sequence[Usage],
    payments: Sequence[Payment] = (),
    rejected: Sequence[Rejected] = (),
    *,
    policy: Policy = Policy(),  # noqa: B008  (frozen)
    before_commit: Hook | None = None,
    hope: Hope | None = None,
    sealer: Sealer | None = None,
) -> Outcome:
    """Book a batch, exactly once.

    Args:
        conn: From `taximeter_db.connect.booking_connection`; in autocommit mode, outside a transaction.
        usages: Priced usages, in the order in which they are to be numbered within their workspaces.
        payments: Payments; booked before the usages.
        rejected: What could not be decoded or priced; parked in the same transaction as the usages.
        policy: What happens to unknown workspaces.
        before_commit: Called once in each transaction, just before its COMMIT (for fault tests).
        hope: Remembers whether batches come without duplicates; they are then claimed the cheaper way. None: the sure way.
        sealer: Compresses and encrypts the payloads; without it they are stored as they came.

    Returns:
        What became of them, after the commit.

    Raises:
        psycopg.OperationalError: The database went away; nothing is known of the last transaction. Call again with the
            same batch on a new connection.
    """
    outcome = Outcome()
    if payments:
        _book_all(conn, payments, (), policy, outcome, before_commit, hope, sealer)
    if usages or rejected:
        _book_all(conn, usages, rejected, policy, outcome, before_commit, hope, sealer)
    return outcome


def _book_all(
    conn: Connection[Any],
    events: Sequence[Event],
    rejected: Sequence[Rejected],
    policy: Policy,
    outcome: Outcome,
    hook: Hook | None,
    hope: Hope | None,
    sealer: Sealer | None,
) -> None:
    """Book events of one kind in one transaction; where the data itself is refused, in halves until the culprit is alone."""
    try:
        _book_with_retries(conn, events, rejected, policy, outcome, hook, hope, sealer)
    except psycopg.DataError as error:
        if len(events) > 1:
            middle = len(events) // 2
            _book_all(conn, events[:middle], rejected, policy, outcome, hook, hope, sealer)
            _book_all(conn, events[middle:], (), policy, outcome, hook, hope, sealer)
        elif events:
            refused = _refuse(events[0], "out_of_range", _explain(error))
            outcome.refused.append(refused)
            _book_all(conn, [], [*rejected, refused], policy, outcome, hook, hope, sealer)
        else:
            raise


def _explain(error: psycopg.DataError) -> str:
    message = error.diag.message_primary or "the database refused a value"
    return (
        f"This event cannot be stored: {message}. Its cost, or the balance or total that it leads to, lies beyond "
        "±10^15 USD. Correct the event or the price, then replay it."
    )


def _refuse(event: Usage | Payment, reason: str, detail: str) -> Rejected:
    if isinstance(event, Usage):
        kind, event_id = "usage", event.event_id
    else:
        kind, event_id = "payment", event.payment_id
    return Rejected(
        reason=reason,
        detail=detail,
        event=event.raw,
        content_type="application/cloudevents+json",
        workspace_id=event.workspace_id,
        event_id=event_id,
        kind=kind,
    )


def _book_with_retries(
    conn: Connection[Any],
    events: Sequence[Event],
    rejected: Sequence[Rejected],
    policy: Policy,
    outcome: Outcome,
    hook: Hook | None,
    hope: Hope | None,
    sealer: Sealer | None,
) -> None:
    """Run the transaction, repairing what a repetition can repair: missing workspaces or partitions, lost races."""
    events = list(events)
    rejected = list(rejected)
    if hope is not None and not policy.quarantine_unknown:
        _make_sure(conn, {event.workspace_id for event in events}, policy, hope)
    for attempt in range(_ATTEMPTS_MAX):
        try:
            if events and isinstance(events[0], Payment):
                payments_ledger.transact(conn, events, outcome, hook)  # type: ignore[arg-type]
            else:
                if sealer is not None:
                    sealer.seal(conn, events)  # type: ignore[arg-type]
                encrypted = sealer is not None and sealer.encrypts
                usages_ledger.transact(conn, events, rejected, outcome, hook, hope, encrypted=encrypted)  # type: ignore[arg-type]
        except StaleKeysError as stale:
            if sealer is None or attempt + 1 == _ATTEMPTS_MAX:
                raise
            sealer.forget(stale.workspace_ids)
        except MissingWorkspacesError as missing:
            if hope is not None:
                hope.missed(missing.workspace_ids)
            if policy.quarantine_unknown:
                unknown = set(missing.workspace_ids)
                for event in events:
                    if event.workspace_id in unknown:
                        refused = _refuse(event, "unknown_workspace", _unknown(event.workspace_id))
                        outcome.refused.append(refused)
                        rejected.append(refused)
                events = [event for event in events if event.workspace_id not in unknown]
                if not events or isinstance(events[0], Payment):
                    park(conn, rejected, outcome)
                    rejected = []
            else:
                _create(conn, missing.workspace_ids, policy)
        except errors.UniqueViolation:
            if attempt + 1 == _ATTEMPTS_MAX:
                raise
            if hope:
                hope.disappointed(failed=True)  # what follows goes the sure way
            else:
                _pause(attempt)
        except (errors.DeadlockDetected, errors.SerializationFailure, errors.LockNotAvailable):
            if attempt + 1 == _ATTEMPTS_MAX:
                raise
            _pause(attempt)
        except errors.CheckViolation as violation:
            # "no partition of relation found for row": the beat task did not come in time
            if attempt + 1 == _ATTEMPTS_MAX or violation.diag.constraint_name is not None:
                raise
            ensure(conn)
        else:
            return
    raise RuntimeError("a batch kept missing workspaces that were just created")  # pragma: no cover


def _make_sure(conn: Connection[Any], workspace_ids: set[str], policy: Policy, hope: Hope) -> None:
    """Create the workspaces that were not seen here yet.

    One that is found missing in the transaction costs all of it; making sure costs a short statement, unless there are many.
    """
    if unknown_here := workspace_ids - hope.workspaces:
        if not hope.expects(len(unknown_here)):
            hope.asked(len(unknown_here), made=_create(conn, unknown_here, policy))
        if len(hope.workspaces) > _WORKSPACES_KNOWN_MAX:
            hope.workspaces.clear()
        hope.workspaces |= unknown_here


def _pause(attempt: int) -> None:
    time.sleep(random.uniform(0, 0.01 * 2 ** min(attempt, 6)))  # noqa: S311  (spreads retries, no secret)


def _unknown(workspace_id: str) -> str:
    return (
        f"Workspace {workspace_id} is not known and unknown workspaces are quarantined here. Create it with "
        f"`taximeter workspace set {workspace_id}`, then replay this event."
    )


def _create(conn: Connection[Any], workspace_ids: Iterable[str], policy: Policy) -> int:
    """Create those that do not exist; returns how many there were."""
    return conn.execute(
        _CREATE_WORKSPACES,
        {
            "workspace_ids": sorted(workspace_ids),
            "minimum": rows.Numeric(policy.minimum),
            "low": rows.Numeric(policy.low),
        },
    ).rowcount


def read_states(conn: Connection[Any], workspace_ids: Iterable[str]) -> list[WorkspaceState]:
    """The committed states of these workspaces, as a flag writer needs them; unknown ones are left out."""
    found = conn.execute(_READ_STATES, {"workspace_ids": list(workspace_ids)}).fetchall()
    return [state_from_row(row) for row in found]
