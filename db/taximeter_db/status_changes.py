"""When a workspace's status changed, and why: written in the transaction that changed it, and read by the page.

A batch that changes no status (nearly all of them) pays for one comparison a workspace; only the events of those whose
status moved are walked through once more, to find the one that moved it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from psycopg import Connection
from sqlalchemy import func, select

from taximeter_db import money
from taximeter_db.core import Statement
from taximeter_db.ledger.events import Payment, Usage, WorkspaceState
from taximeter_db.models.flags import LedgerState
from taximeter_db.notices import compose, outbox
from taximeter_db.server_time import moment
from taximeter_db.sql import statement

LIMIT_MAX = 1_000
_CHANGES = statement("status_changes")
_NEWEST_FIRST = _CHANGES.replace("{order}", "c.id DESC")
_IN_TIME = _CHANGES.replace("{order}", "c.changed_at DESC, c.id DESC")
_UNBOUNDED: Final = dict.fromkeys(("before", "start", "end", "status"))
_KEPT_SINCE = Statement(select(func.min(LedgerState.status_changes_since)))
_APPEND = statement("append_status_changes")


class StatusChange(msgspec.Struct, frozen=True):
    """One change of status, with the limits that held then. Amounts in picodollars, `changed_at` in microseconds.

    `entry` numbers usages and payments together: where in the workspace's history it happened. `cause` is ``usage``,
    ``payment`` or ``settings``; `cause_seq` and `cause_id` name the usage or payment, or who changed the settings.
    """

    workspace_id: str
    changed_at: int
    before: str
    after: str
    balance: int
    minimum: int
    low: int
    entry: int
    cause: str
    cause_seq: int | None
    cause_id: str | None


def of_usages(
    usages: Iterable[Usage], costs: Mapping[str, Sequence[int]], states: Mapping[str, WorkspaceState]
) -> list[StatusChange]:
    """The changes that a batch of usages made; `costs` holds each workspace's cost and number of new usages."""
    moved: dict[str, list[int]] = {}
    for name, (cost, count) in costs.items():
        state = states[name]
        before = state.balance + cost
        if min(before, state.balance) >= max(state.minimum, state.low):
            continue  # sufficient and still so, as nearly all are
        if _status(before, state) != _status(state.balance, state):
            moved[name] = [before, state.usage_count - count]
    changes: list[StatusChange] = []
    if not moved:
        return changes
    for usage in usages:
        if current := moved.get(usage.workspace_id):
            state = states[usage.workspace_id]
            before = current[0]
            current[0] -= usage.cost
            current[1] += 1
            entry = current[1] + state.payment_count
            _note(changes, state, (before, current[0]), entry, ("usage", current[1], usage.event_id))
    return changes


def of_payments(payments: Iterable[Payment], states: Mapping[str, WorkspaceState]) -> list[StatusChange]:
    """The changes that a batch of payments made, those that an adjustment took back included."""
    totals: dict[str, list[int]] = {}
    payments = list(payments)
    for payment in payments:
        sums = totals.setdefault(payment.workspace_id, [0, 0])
        sums[0] += payment.amount
        sums[1] += 1
    changes: list[StatusChange] = []
    for payment in payments:
        state = states[payment.workspace_id]
        left = totals[payment.workspace_id]
        before = state.balance - left[0]
        left[0] -= payment.amount
        left[1] -= 1
        seq = state.payment_count - left[1]
        cause = ("payment", seq, payment.payment_id)
        _note(changes, state, (before, state.balance - left[0]), seq + state.usage_count, cause)
    return changes


def of_settings(before: str, state: WorkspaceState, by: str) -> list[StatusChange]:
    """The change that new limits made to a workspace whose status was `before`."""
    after = state.status
    if after == before:
        return []
    entry = state.usage_count + state.payment_count
    return [
        StatusChange(
            state.workspace_id,
            state.recorded_at,
            before,
            after,
            state.balance,
            state.minimum,
            state.low,
            entry,
            "settings",
            None,
            by,
        )
    ]


def _status(balance: int, state: WorkspaceState) -> str:
    return money.status_of(balance, state.minimum, state.low)


def _note(
    changes: list[StatusChange],
    state: WorkspaceState,
    balances: tuple[int, int],
    entry: int,
    cause: tuple[str, int, str],
) -> None:
    before, after = (_status(balance, state) for balance in balances)
    if before != after:
        kind, seq, cause_id = cause
        changes.append(
            StatusChange(
                state.workspace_id,
                state.recorded_at,
                before,
                after,
                balances[1],
                state.minimum,
                state.low,
                entry,
                kind,
                seq,
                cause_id,
            )
        )


def append(conn: Connection[Any], changes: Sequence[StatusChange]) -> None:
    """Append changes to the log and write their notices, within the transaction that made them."""
    if not changes:
        return
    numeric = money.numeric_text
    conn.execute(
        _APPEND,
        {
            "workspace_ids": [change.workspace_id for change in changes],
            "times": [moment(change.changed_at) for change in changes],
            "befores": [change.before for change in changes],
            "afters": [change.after for change in changes],
            "balances": [numeric(change.balance) for change in changes],
            "minimums": [numeric(change.minimum) for change in changes],
            "lows": [numeric(change.low) for change in changes],
            "entries": [change.entry for change in changes],
            "causes": [change.cause for change in changes],
            "cause_seqs": [change.cause_seq for change in changes],
            "cause_ids": [change.cause_id for change in changes],
        },
    )
    outbox.put(conn, [compose.of_status_change(change) for change in changes])


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
    return _read(conn, _NEWEST_FIRST, workspace_id, before=before, limit=min(limit, LIMIT_MAX))


def between(
    conn: Connection[Any], workspace_id: str, start: dt.datetime, end: dt.datetime, limit: int = LIMIT_MAX
) -> list[StatusRow]:
    """The changes of a period, newest first, at most `limit`."""
    return _read(conn, _IN_TIME, workspace_id, start=start, end=end, limit=min(limit, LIMIT_MAX))


def switched_off_by(conn: Connection[Any], workspace_id: str) -> StatusRow | None:
    """The change that switched AI off last; None where it never was, or was before changes were kept."""
    return next(iter(_read(conn, _NEWEST_FIRST, workspace_id, status="insufficient", limit=1)), None)


def kept_since(conn: Connection[Any]) -> dt.datetime:
    """From when on the log of changes is complete."""
    return _KEPT_SINCE.scalar(conn)  # type: ignore[no-any-return]


def _read(conn: Connection[Any], query: str, workspace_id: str, *, limit: int, **bounds: Any) -> list[StatusRow]:
    """The changes within the given bounds: ``before``, ``start``, ``end`` and ``status``, each of which may be left out."""
    values = {**_UNBOUNDED, **bounds, "workspace_id": workspace_id, "limit": limit}
    return [_row(row) for row in conn.execute(query, values)]


def _row(row: tuple[Any, ...]) -> StatusRow:
    change_id, at, before, after, balance, minimum, low, entry, cause, cause_seq, cause_id, tool, amount = row
    return StatusRow(
        change_id,
        at,
        before,
        after,
        money.from_numeric_text(balance),
        money.from_numeric_text(minimum),
        money.from_numeric_text(low),
        entry,
        cause,
        cause_seq,
        cause_id,
        tool,
        None if amount is None else money.from_numeric_text(amount),
    )
