"""Setting and removing budgets, and what a repricing changes. Each is logged with who did it, as other settings are."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

from psycopg import Connection
from sqlalchemy import BindParameter, bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert

from taximeter_db import access, flag_debts, workspaces
from taximeter_db.budgets import standing
from taximeter_db.budgets.reading import find
from taximeter_db.budgets.standing import BY_REPRICING, BY_SETTINGS, Cause
from taximeter_db.budgets.terms import Terms, check
from taximeter_db.core import Statement
from taximeter_db.errors import NotFoundError, SettingsError
from taximeter_db.ledger.booking import read_states
from taximeter_db.ledger.events import Policy, WorkspaceState
from taximeter_db.models.base import Id
from taximeter_db.models.budgets import Budget, BudgetSpending
from taximeter_db.sql import statements

BUDGETS_MAX: Final = 20_000
"""In one workspace."""
_SQL = statements("budgets")
_ID: BindParameter[str] = bindparam("workspace_id", type_=Id)
_NAME: BindParameter[str] = bindparam("name", type_=Id)
_FIELDS: Final = (
    *("amount", "period", "hours", "zone", "user_id", "tool", "model", "tag", "tag_value", "selector"),
    *("hard", "thresholds", "counted_from"),
)
_INSERT = insert(Budget).values(
    workspace_id=_ID,
    name=_NAME,
    window_start=bindparam("counted_from"),
    **{field: bindparam(field) for field in _FIELDS},
)
# What was reached before stays noted, so that what changes with the terms is told.
_UPSERT = Statement(
    _INSERT.on_conflict_do_update(
        index_elements=["workspace_id", "name"], set_={field: _INSERT.excluded[field] for field in _FIELDS}
    )
)
_REMOVE = Statement(delete(Budget).where(Budget.workspace_id == _ID, Budget.name == _NAME))
_FORGET = Statement(delete(BudgetSpending).where(BudgetSpending.workspace_id == _ID, BudgetSpending.name == _NAME))
_FULL = Statement(select(Budget.name).where(Budget.workspace_id == _ID).limit(1).offset(BUDGETS_MAX - 1))

_Sums = dict[dt.datetime, tuple[str, int]]


def set_budget(
    conn: Connection[Any],
    terms: Terms,
    *,
    by: str = "command line",
    policy: Policy = Policy(),  # noqa: B008 -- frozen
) -> WorkspaceState:
    """Set a budget, or change the one of this name; returns the state that the workspace's flag must now show.

    What was spent in the present period is counted from the log, whatever the counter said before. A workspace that was never seen is
    created, with the limits of the policy.

    Raises:
        SettingsError: The terms make no sense, or the workspace has too many budgets; nothing was changed.
    """
    check(conn, terms)
    workspace_id = workspaces.check_id(terms.workspace_id)
    row = conn.execute(_SQL["usage_count"], {"workspace_id": workspace_id}).fetchone()
    if row is None:
        workspaces.set_limits(conn, workspace_id, policy=policy, by=by)
    # Most of the log is read before the workspace's row is locked, on which booking waits.
    window_before = _window(conn, terms, None)
    count_before = row[0] if row else 0
    sums = _from_log(conn, terms, window_before, 0, count_before)
    with conn.transaction():
        count, moment = _lock(conn, workspace_id)
        before = find(conn, workspace_id, terms.name)
        if before is None and _FULL.first(conn, workspace_id=workspace_id) is not None:
            raise SettingsError(f"Workspace {workspace_id} has {BUDGETS_MAX:,} budgets, which is all that it may have.")
        window = _window(conn, terms, moment)
        if window != window_before:
            count_before, sums = 0, {}
        sums = _added(sums, _from_log(conn, terms, window, count_before, count))
        _replace(conn, terms, window, sums)
        key = (workspace_id, terms.name)
        standing.settle(conn, [key], {workspace_id: moment}, Cause(BY_SETTINGS, lambda _standing, _amount: by))
        standing.tell(conn, [workspace_id])
        old = None if before is None else before.terms.described()
        if old != terms.described():
            access.log_change(conn, workspace_id, by, f"budget {terms.name}", old, terms.described())
    return read_states(conn, [workspace_id])[0]


def remove(conn: Connection[Any], workspace_id: str, name: str, *, by: str = "command line") -> WorkspaceState:
    """Remove a budget; returns the state that the workspace's flag must now show.

    Raises:
        NotFoundError: There is none of this name.
    """
    with conn.transaction():
        before = find(conn, workspace_id, name)
        if before is None:
            raise NotFoundError(
                f"Workspace {workspace_id[:128]} has no budget {name[:64]!r}; `taximeter budget list` names them."
            )
        _, moment = _lock(conn, workspace_id)
        standing.lift(conn, (workspace_id, name), moment, by)
        _REMOVE.run(conn, workspace_id=workspace_id, name=name)
        _FORGET.run(conn, workspace_id=workspace_id, name=name)
        standing.tell(conn, [workspace_id])
        access.log_change(conn, workspace_id, by, f"budget {name}", before.terms.described(), None)
    return read_states(conn, [workspace_id])[0]


def count_repriced(conn: Connection[Any], workspace_id: str, repricing: int) -> None:
    """Count what a repricing has listed for a workspace, within its transaction."""
    row = conn.execute(_SQL["has_budgets"], {"workspace_id": workspace_id}).fetchone()
    if row is None:
        return
    _, moment = _lock(conn, workspace_id)
    names = conn.execute(_SQL["add_repriced"], {"workspace_id": workspace_id, "repricing": repricing}).fetchall()
    keys = [(workspace_id, name) for (name,) in names]
    standing.settle(conn, keys, {workspace_id: moment}, Cause(BY_REPRICING))
    flag_debts.note(conn, [workspace_id])


def _lock(conn: Connection[Any], workspace_id: str) -> tuple[int, int]:
    """Lock a workspace under a new version; returns its number of usages and the moment in microseconds."""
    row = conn.execute(_SQL["lock"], {"workspace_ids": [workspace_id]}).fetchone()
    if row is None:
        raise NotFoundError(f"Workspace {workspace_id} is not known.")
    return row[1], row[2]


def _window(conn: Connection[Any], terms: Terms, moment: int | None) -> dt.datetime:
    at = None if moment is None else standing.time_of(moment)
    row = conn.execute(_SQL["window"], {**terms.parameters(), "moment": at}).fetchone()
    return row[0]  # type: ignore[index,no-any-return]  # a SELECT without a table returns a row


def _from_log(conn: Connection[Any], terms: Terms, since: dt.datetime, after: int, upto: int) -> _Sums:
    """What the log says was spent since a bucket, by the usages with numbers above `after` up to `upto`, by bucket."""
    if after >= upto:
        return {}
    rows = conn.execute(
        _SQL["from_log"], {**terms.parameters(), "since": since, "after": after, "upto": upto}, prepare=False
    )
    return {bucket: (cost, usages) for bucket, cost, usages in rows}


def _added(sums: _Sums, more: _Sums) -> _Sums:
    added = dict(sums)
    for bucket, (cost, usages) in more.items():
        before, count = added.get(bucket, ("0.000000000000", 0))
        added[bucket] = standing.sum_texts(before, cost), count + usages
    return added


def _replace(conn: Connection[Any], terms: Terms, window: dt.datetime, sums: _Sums) -> None:
    parameters = terms.parameters()
    fields = {
        **{field: parameters[field] for field in ("period", "hours", "zone", "tool", "model", "tag", "tag_value")},
        "amount": terms.limit,
        "user_id": terms.user,
        "selector": terms.selector,
        "hard": terms.hard,
        "thresholds": sorted(terms.thresholds),
        "counted_from": window,
    }
    _UPSERT.run(conn, workspace_id=terms.workspace_id, name=terms.name, **fields)
    conn.execute(
        _SQL["replace"],
        {
            "workspace_id": terms.workspace_id,
            "name": terms.name,
            "buckets": list(sums),
            "costs": [cost for cost, _ in sums.values()],
            "usages": [usages for _, usages in sums.values()],
        },
    )
