"""Workspaces: their settings, and what is known of them."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
from psycopg import Connection, errors
from sqlalchemy import BindParameter, Text, bindparam, func, select

from taximeter_db import access, flag_debts, money, status_changes
from taximeter_db.core import Statement
from taximeter_db.errors import NotFoundError, SettingsError
from taximeter_db.ledger.booking import read_states
from taximeter_db.ledger.events import Policy, WorkspaceState
from taximeter_db.limits import is_workspace_id
from taximeter_db.models.base import Id
from taximeter_db.models.ledger import Workspace
from taximeter_db.models.quarantine import Quarantined
from taximeter_db.sql import statement

_ID: BindParameter[str] = bindparam("workspace_id", type_=Id)
_WAITING = Statement(select(func.count()).where(Quarantined.workspace_id == _ID, Quarantined.resolved_at.is_(None)))
_DETAILS = Statement(
    select(
        Workspace.workspace_id,
        Workspace.balance,
        Workspace.minimum_balance,
        Workspace.low_balance_threshold,
        Workspace.usage_count,
        Workspace.usage_cost,
        Workspace.payment_count,
        Workspace.payment_total,
        Workspace.duplicate_count,
        select(func.count())
        .where(Quarantined.workspace_id == Workspace.workspace_id, Quarantined.resolved_at.is_(None))
        .scalar_subquery(),
        Workspace.created_at,
        Workspace.updated_at,
    ).where(Workspace.workspace_id == _ID)
)
# Locks the row, so that the log says what the change really changed.
_LIMITS = Statement(
    select(Workspace.minimum_balance, Workspace.low_balance_threshold, Workspace.balance)
    .where(Workspace.workspace_id == _ID)
    .with_for_update()
)
_SAY_WHO = Statement(select(func.set_config("taximeter.changed_by", bindparam("by", type_=Text), True)))
_SET = statement("set_limits")


class WorkspaceDetails(msgspec.Struct, frozen=True):
    """Balance, limits and totals of a workspace. Amounts in picodollars."""

    workspace_id: str
    balance: int
    minimum: int
    low: int
    usage_count: int
    usage_cost: int
    payment_count: int
    payment_total: int
    duplicate_count: int
    quarantined_open: int
    created_at: dt.datetime | None = None
    """None: it was never seen."""
    updated_at: dt.datetime | None = None

    @property
    def status(self) -> str:
        """``sufficient``, ``low`` or ``insufficient``."""
        return money.status_of(self.balance, self.minimum, self.low)

    @property
    def enabled(self) -> bool:
        """Whether AI is enabled."""
        return self.balance >= self.minimum


def check_id(workspace_id: str) -> str:
    """Return a workspace id if it is well-formed.

    Raises:
        SettingsError: It is empty, too long or has other characters.
    """
    if not is_workspace_id(workspace_id):
        raise SettingsError(
            f"{workspace_id[:140]!r} is not a workspace id. An id has 1 to 128 characters of A-Z a-z 0-9 . _ : -"
        )
    return workspace_id


def get(conn: Connection[Any], workspace_id: str) -> WorkspaceDetails:
    """Everything about one workspace.

    Raises:
        NotFoundError: No event, payment or setting ever named it.
        SettingsError: The id is malformed.
    """
    details = find(conn, workspace_id)
    if details is None:
        raise NotFoundError(
            f"Workspace {workspace_id} is not known: no event, payment or setting ever named it. "
            f"Its balance is 0 and AI is enabled; `taximeter workspace set {workspace_id}` creates it."
        )
    return details


def unseen(conn: Connection[Any], workspace_id: str, *, minimum: int, low: int) -> WorkspaceDetails:
    """A workspace that nothing ever created: balance 0 and the limits of a new one. Quarantine may know it."""
    waiting = _WAITING.scalar(conn, workspace_id=workspace_id)
    return WorkspaceDetails(workspace_id, 0, minimum, low, 0, 0, 0, 0, 0, waiting)


def find(conn: Connection[Any], workspace_id: str) -> WorkspaceDetails | None:
    """Everything about one workspace; None if it was never seen.

    Raises:
        SettingsError: The id is malformed.
    """
    row = _DETAILS.first(conn, workspace_id=check_id(workspace_id))
    return None if row is None else WorkspaceDetails(*row)


def set_limits(
    conn: Connection[Any],
    workspace_id: str,
    *,
    minimum: int | None = None,
    low: int | None = None,
    policy: Policy = Policy(),  # noqa: B008 -- frozen
    by: str = "command line",
) -> WorkspaceState:
    """Create a workspace or change its limits (picodollars); returns the state that its flag must now show.

    A new one gets those of the policy where none are given. What changes is logged under the name `by`.

    Raises:
        SettingsError: The minimum would lie above the low-balance threshold; nothing was changed.
    """
    check_id(workspace_id)
    texts = {
        "minimum": minimum,
        "low": low,
        "default_minimum": policy.minimum,
        "default_low": policy.low,
    }
    values: dict[str, str | None] = {
        name: None if pico is None else money.numeric_text(pico) for name, pico in texts.items()
    }
    try:
        with conn.transaction():
            before = _LIMITS.first(conn, workspace_id=workspace_id)
            _SAY_WHO.run(conn, by=by)
            conn.execute(_SET, {"id": workspace_id, **values})
            after = read_states(conn, [workspace_id])[0]
            if before is None:
                _log_first(conn, after, by)
            # one that was never seen has balance 0 and the platform's limits
            minimum_before, low_before, balance = before or (policy.minimum, policy.low, 0)
            status = money.status_of(balance, minimum_before, low_before)
            status_changes.append(conn, status_changes.of_settings(status, after, by))
            flag_debts.note(conn, [workspace_id])
    except errors.CheckViolation as error:
        raise SettingsError(
            f"The minimum balance of {workspace_id} would lie above its low-balance threshold. "
            "The minimum is where AI stops, the threshold where the warning begins: set both, the minimum the lower one."
        ) from error
    return after


def _log_first(conn: Connection[Any], state: WorkspaceState, by: str) -> None:
    """Log the limits of a workspace that was made; the database logs every change after that."""
    for field, value in (("minimum", state.minimum), ("low", state.low)):
        access.log_change(conn, state.workspace_id, by, field, None, money.format_usd(value))
