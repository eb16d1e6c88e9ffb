"""Booking payments: few and important, so plain statements; one transaction for a batch.

The payments' own primary key is the idempotency key. Two workers that book the same payment at once collide on it;
the loser's transaction is rolled back and repeated, and then finds the payment.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any

from psycopg import Connection
from psycopg.types.json import Jsonb

from taximeter_db import flag_debts, status_changes
from taximeter_db.ledger import binary_rows, grants
from taximeter_db.ledger.common import MissingWorkspacesError, conflict, insert_quarantined, state_from_row
from taximeter_db.ledger.context import BookingContext
from taximeter_db.ledger.events import Outcome, Payment, Rejected, WorkspaceState
from taximeter_db.notices import compose, outbox
from taximeter_db.sql import statement

# not SQL arithmetic: a number of microseconds times an interval goes through a float there
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_CREDIT = statement("credit_workspaces")
_READ_STATES = statement("read_states")
_READ_PAYMENTS = statement("read_payments")
_DIGEST = statement("digest_payments")
_INSERT_PAYMENT = statement("insert_payment")


def transact(
    conn: Connection[Any],
    context: BookingContext,
    outcome: Outcome,
    payments: Sequence[Payment],
    rejected: Sequence[Rejected],
) -> None:
    """Book payments and quarantine rejections in one transaction; `outcome` grows only once it has committed.

    Raises:
        MissingWorkspacesError: Some workspaces do not exist; nothing was booked.
        psycopg.errors.UniqueViolation: Another worker booked one of them meanwhile; call again.
    """
    mine = Outcome()
    with conn.transaction():
        new, conflicts, duplicates = _sort_out(conn, payments)
        touched = sorted({payment.workspace_id for payment in new})
        if touched:
            mine.states, links = _credit(conn, new, touched)
            _append(conn, new, mine.states, links)
            grants.put(conn, new)
            outbox.put(conn, compose.of_payments(new, mine.states))
            status_changes.append(conn, status_changes.of_payments(new, mine.states))
        insert_quarantined(conn, [*rejected, *conflicts], mine)
        if context.owe_flags and touched:
            flag_debts.note(conn, touched)
        context.before_commit()
        for state in _states(conn, {payment.workspace_id for payment in duplicates} - set(touched)):
            mine.states[state.workspace_id] = state
    outcome.states.update(mine.states)
    outcome.may_notify |= bool(new)
    outcome.payments_booked += len(new)
    outcome.payments_duplicate += len(duplicates)
    outcome.amount += sum(payment.amount for payment in new)
    outcome.rejected.update(mine.rejected)
    outcome.refused.extend(conflicts)


def _sort_out(
    conn: Connection[Any], payments: Sequence[Payment]
) -> tuple[list[Payment], list[Rejected], list[Payment]]:
    """Tell new payments from conflicts and duplicates."""
    booked = read(conn, payments)
    new: list[Payment] = []
    conflicts: list[Rejected] = []
    duplicates: list[Payment] = []
    for payment in payments:
        key = (payment.workspace_id, payment.payment_id)
        known = booked.get(key)
        if known is None:
            booked[key] = payment.fingerprint
            new.append(payment)
        elif known == payment.fingerprint:
            duplicates.append(payment)
        else:
            conflicts.append(conflict(payment, known))
    return new, conflicts, duplicates


def read(conn: Connection[Any], payments: Sequence[Payment]) -> dict[tuple[str, str], bytes]:
    """The fingerprints of those payments that were booked before, by workspace and payment id."""
    rows = conn.execute(
        _READ_PAYMENTS,
        {
            "workspace_ids": [payment.workspace_id for payment in payments],
            "payment_ids": [payment.payment_id for payment in payments],
        },
    )
    return {(workspace_id, payment_id): fingerprint.bytes for workspace_id, payment_id, fingerprint in rows}


def _digests(conn: Connection[Any], new: Sequence[Payment]) -> dict[str, bytes]:
    """What the chain takes in of each workspace's payments."""
    found = conn.execute(
        _DIGEST,
        {
            "workspace_ids": [payment.workspace_id for payment in new],
            "payment_ids": [payment.payment_id for payment in new],
            "kinds": [payment.kind for payment in new],
            "amounts": binary_rows.NumericArray([payment.amount for payment in new]),
            "transactions": [
                None if payment.transaction is None else json.dumps(payment.transaction) for payment in new
            ],
            "notes": [payment.note for payment in new],
            "fingerprints": [payment.fingerprint.hex() for payment in new],
            "times": [_moment(payment.occurred_at) for payment in new],
        },
    ).fetchall()
    return dict(found)


def _moment(micros: int) -> dt.datetime:
    return _EPOCH + dt.timedelta(microseconds=micros)


def _credit(
    conn: Connection[Any], new: Sequence[Payment], touched: Sequence[str]
) -> tuple[dict[str, WorkspaceState], dict[str, bytes]]:
    """Move the balances; returns each workspace's state and the new link of its chain."""
    digests = _digests(conn, new)
    amounts = dict.fromkeys(touched, 0)
    counts = dict.fromkeys(touched, 0)
    for payment in new:
        amounts[payment.workspace_id] += payment.amount
        counts[payment.workspace_id] += 1
    found = conn.execute(
        _CREDIT,
        {
            "workspace_ids": binary_rows.TextArray([binary_rows.text(name) for name in touched]),
            "amounts": binary_rows.NumericArray([amounts[name] for name in touched]),
            "payments": binary_rows.BigintArray([counts[name] for name in touched]),
            "digests": binary_rows.ByteaArray([digests[name] for name in touched]),
        },
    ).fetchall()
    states = {row[0]: state_from_row(row[:-1]) for row in found}
    if len(states) != len(touched):
        raise MissingWorkspacesError(name for name in touched if name not in states)
    return states, {row[0]: row[-1] for row in found}


def _append(
    conn: Connection[Any], new: Sequence[Payment], states: dict[str, WorkspaceState], links: dict[str, bytes]
) -> None:
    totals: dict[str, list[int]] = {}
    for payment in new:
        sums = totals.setdefault(payment.workspace_id, [0, 0])
        sums[0] += payment.amount
        sums[1] += 1
    running = {
        name: [states[name].balance - amount, states[name].payment_count - count]
        for name, (amount, count) in totals.items()
    }
    values = []
    for payment in new:
        current = running[payment.workspace_id]
        current[0] += payment.amount
        current[1] += 1
        state = states[payment.workspace_id]
        values.append(
            {
                "workspace_id": payment.workspace_id,
                "payment_id": payment.payment_id,
                "seq": current[1],
                "entry": current[1] + state.usage_count,
                "kind": payment.kind,
                "amount": binary_rows.Numeric(payment.amount),
                "balance_after": binary_rows.Numeric(current[0]),
                "transaction": None if payment.transaction is None else Jsonb(payment.transaction),
                "note": payment.note,
                "fingerprint": payment.fingerprint.hex(),
                "occurred_at": _moment(payment.occurred_at),
                "recorded_at": _moment(state.recorded_at),
                "link": links[payment.workspace_id] if current[1] == state.payment_count else None,
            }
        )
    conn.cursor().executemany(_INSERT_PAYMENT, values)


def _states(conn: Connection[Any], workspace_ids: set[str]) -> list[WorkspaceState]:
    if not workspace_ids:
        return []
    found = conn.execute(_READ_STATES, {"workspace_ids": sorted(workspace_ids)}).fetchall()
    return [state_from_row(row) for row in found]
