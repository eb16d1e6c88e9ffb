"""Counting what usages cost for the budgets that they concern, in the transaction that books them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from psycopg import Connection

from taximeter_db.budgets import standing
from taximeter_db.budgets.standing import BY_USAGE, Cause, Key, Standing
from taximeter_db.budgets.terms import selectors
from taximeter_db.ledger.columns import Labels
from taximeter_db.ledger.events import Usage, WorkspaceState
from taximeter_db.money import numeric_text
from taximeter_db.sql import statements

_SQL = statements("budgets")
_MINUTE: Final = 60_000_000
NO_LABELS: Final = Labels()


class _Budget(NamedTuple):
    """The conditions of a budget; a usage has one of them, by which the budget was found."""

    key: Key
    user: str | None
    tool: str | None
    model: str | None
    tag: str | None
    tag_value: str | None

    def counts(self, usage: Usage) -> bool:
        labels = usage.labels or NO_LABELS
        return (
            (self.user is None or self.user == labels.user_id)
            and (self.tool is None or self.tool == usage.tool)
            and (self.model is None or self.model == usage.model)
            and (self.tag is None or (labels.tags or {}).get(self.tag) == self.tag_value)
        )


def count(
    conn: Connection[Any], usages: Iterable[Usage], states: Mapping[str, WorkspaceState], having: Collection[str]
) -> None:
    """Count new usages, after the balances were debited and within the same transaction.

    Args:
        conn: holds the rows of the workspaces.
        usages: those that are booked for the first time.
        states: of their workspaces; where a flag must say something else of budgets now, its state says so afterwards.
        having: the workspaces that have budgets.
    """
    names = frozenset(having)
    concerned = [usage for usage in usages if usage.workspace_id in names]
    budgets = _find(conn, concerned) if concerned else {}
    if not budgets:
        return
    counted: dict[Key, list[Usage]] = {}
    for usage in concerned:
        for selector in _selectors(usage):
            for budget in budgets.get((usage.workspace_id, selector), ()):
                if budget.counts(usage):
                    counted.setdefault(budget.key, []).append(usage)
    if not counted:
        return
    _add(conn, counted)
    moments = {workspace_id: states[workspace_id].recorded_at for workspace_id, _ in counted}
    told = standing.settle(conn, counted, moments, Cause(BY_USAGE, _Finder(counted)))
    for workspace_id, text in told.items():
        states[workspace_id].budgets = text


def _selectors(usage: Usage) -> list[str]:
    labels = usage.labels or NO_LABELS
    return selectors(labels.user_id, usage.tool, usage.model, labels.tags)


def _find(conn: Connection[Any], usages: Iterable[Usage]) -> dict[Key, list[_Budget]]:
    """The budgets of these usages' workspaces and selectors, by both."""
    wanted = sorted({(usage.workspace_id, selector) for usage in usages for selector in _selectors(usage)})
    rows = conn.execute(
        _SQL["find"],
        {
            "workspace_ids": [workspace_id for workspace_id, _ in wanted],
            "selectors": [selector for _, selector in wanted],
        },
    )
    found: dict[Key, list[_Budget]] = {}
    for workspace_id, selector, name, *conditions in rows:
        found.setdefault((workspace_id, selector), []).append(_Budget((workspace_id, name), *conditions))
    return found


def _add(conn: Connection[Any], counted: Mapping[Key, Sequence[Usage]]) -> None:
    sums: dict[tuple[Key, int], list[int]] = {}
    for key, usages in counted.items():
        for usage in usages:
            entry = sums.setdefault((key, usage.occurred_at // _MINUTE), [0, 0])
            entry[0] += usage.cost
            entry[1] += 1
    conn.execute(
        _SQL["add"],
        {
            "workspace_ids": [workspace_id for (workspace_id, _), _ in sums],
            "names": [name for (_, name), _ in sums],
            "minutes": [minute for _, minute in sums],
            "costs": [numeric_text(cost) for cost, _ in sums.values()],
            "usages": [usages for _, usages in sums.values()],
        },
    )


class _Finder:
    """Finds the usage of a batch with which a budget's spending reached an amount."""

    def __init__(self, counted: Mapping[Key, Sequence[Usage]]) -> None:
        self._counted = counted

    def __call__(self, budget: Standing, amount: int) -> str | None:
        start = int(budget.window_start.timestamp()) * 1_000_000
        usages = [usage for usage in self._counted[budget.key] if usage.occurred_at >= start]
        running = budget.spent - sum(usage.cost for usage in usages)
        for usage in usages:
            running += usage.cost
            if running >= amount:
                return usage.event_id
        return None
