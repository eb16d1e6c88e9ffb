"""Workspaces: their settings, and what is known of them."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import msgspec
from psycopg import Connection, errors

from taximeter_db import money, status_changes
from taximeter_db.errors import NotFoundError, SettingsError
from taximeter_db.events import WorkspaceState
from taximeter_db.ledger import read_states
from taximeter_db.reading import access

_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}", re.ASCII)

_DETAILS = """
SELECT w.workspace_id, w.balance::text, w.minimum_balance::text, w.low_balance_threshold::text,
       w.usage_count, w.usage_cost::text, w.payment_count, w.payment_total::text, w.duplicate_count,
       (SELECT count(*) FROM taximeter.quarantine AS q
        WHERE q.workspace_id = w.workspace_id AND q.resolved_at IS NULL),
       w.created_at, w.updated_at
FROM taximeter.workspaces AS w WHERE w.workspace_id = %s
"""

_WAITING = "SELECT count(*) FROM taximeter.quarantine WHERE workspace_id = %s AND resolved_at IS NULL"

# Locks the row, so that the log says what the change really changed.
_LIMITS = """
SELECT minimum_balance::text, low_balance_threshold::text, balance::text FROM taximeter.workspaces
WHERE workspace_id = %s FOR UPDATE
"""

# One statement creates or changes: the limits that are not given keep their value, or take the default.
_SET = """
INSERT INTO taximeter.workspaces AS w (workspace_id, minimum_balance, low_balance_threshold)
VALUES (%(id)s, coalesce(%(minimum)s::numeric, %(default_minimum)s::numeric),
        coalesce(%(low)s::numeric, greatest(%(default_low)s::numeric, %(minimum)s::numeric)))
ON CONFLICT (workspace_id) DO UPDATE
SET minimum_balance = coalesce(%(minimum)s::numeric, w.minimum_balance),
    low_balance_threshold = coalesce(%(low)s::numeric, w.low_balance_threshold),
    version = w.version + 1,
    updated_at = greatest(clock_timestamp(), w.updated_at + interval '1 microsecond')
"""


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
    if not _ID.fullmatch(workspace_id):
        raise SettingsError(
            f"{workspace_id[:140]!r} is no workspace id. An id has 1 to 128 characters of A-Z a-z 0-9 . _ : -"
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
    (waiting,) = conn.execute(_WAITING, [workspace_id]).fetchone()  # type: ignore[misc]  # one row always
    return WorkspaceDetails(workspace_id, 0, minimum, low, 0, 0, 0, 0, 0, waiting)


def find(conn: Connection[Any], workspace_id: str) -> WorkspaceDetails | None:
    """Everything about one workspace; None if it was never seen.

    Raises:
        SettingsError: The id is malformed.
    """
    row = conn.execute(_DETAILS, [check_id(workspace_id)]).fetchone()
    if row is None:
        return None
    name, balance, minimum, low, usage_count, usage_cost, payment_count, payment_total, *rest = row
    return WorkspaceDetails(
        name,
        money.from_numeric_text(balance),
        money.from_numeric_text(minimum),
        money.from_numeric_text(low),
        usage_count,
        money.from_numeric_text(usage_cost),
        payment_count,
        money.from_numeric_text(payment_total),
        *rest,
    )


def set_limits(
    conn: Connection[Any],
    workspace_id: str,
    *,
    minimum: int | None = None,
    low: int | None = None,
    default_minimum: int = -120_000_000_000,
    default_low: int = 0,
    by: str = "command line",
) -> WorkspaceState:
    """Create a workspace or change its limits (picodollars); returns the state that its flag must now show.

    What changes is logged under the name `by`.

    Raises:
        SettingsError: The minimum would lie above the low-balance threshold; nothing was changed.
    """
    check_id(workspace_id)
    texts = {
        "minimum": minimum,
        "low": low,
        "default_minimum": default_minimum,
        "default_low": default_low,
    }
    values: dict[str, str | None] = {
        name: None if pico is None else money.numeric_text(pico) for name, pico in texts.items()
    }
    try:
        with conn.transaction():
            row = conn.execute(_LIMITS, [workspace_id]).fetchone()
            before = None if row is None else tuple(map(money.from_numeric_text, row))
            conn.execute(_SET, {"id": workspace_id, **values})
            after = read_states(conn, [workspace_id])[0]
            _log(conn, before, after, by)
            # one that was never seen has balance 0 and the platform's limits
            minimum_before, low_before, balance = before or (default_minimum, default_low, 0)
            status = money.status_of(balance, minimum_before, low_before)
            status_changes.append(conn, status_changes.of_settings(status, after, by))
    except errors.CheckViolation as error:
        raise SettingsError(
            f"The minimum balance of {workspace_id} would lie above its low-balance threshold. "
            "The minimum is where AI stops, the threshold where the warning begins: set both, the minimum the lower one."
        ) from error
    return after


def _log(conn: Connection[Any], before: tuple[int, ...] | None, after: WorkspaceState, by: str) -> None:
    was = before or (None, None)
    for field, old, new in (("minimum", was[0], after.minimum), ("low", was[1], after.low)):
        if old != new:
            text = None if old is None else money.format_usd(old)
            access.log_change(conn, after.workspace_id, by, field, text, money.format_usd(new))
