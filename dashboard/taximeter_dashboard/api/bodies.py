"""Rows of the ledger as they travel: exact decimal strings, times in UTC."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections.abc import Callable
from typing import Any, Final

from taximeter_dashboard.reading.spending import Analysis
from taximeter_db.budgets.reading import BudgetNow
from taximeter_db.ledger import columns
from taximeter_db.ledger.grants import GrantNow
from taximeter_db.money import format_usd
from taximeter_db.queries.payments import PaymentRow
from taximeter_db.queries.summary import Glance, Summary
from taximeter_db.queries.usages import UsageRow
from taximeter_db.status_changes import StatusRow


def utc(moment: dt.datetime) -> dt.datetime:
    """A moment in UTC."""
    return moment.astimezone(dt.UTC)


def in_utc(members: dict[str, Any]) -> dict[str, Any]:
    """An object with its moments in UTC."""
    return {name: utc(value) if isinstance(value, dt.datetime) else value for name, value in members.items()}


def summary(found: Summary, held: int | None) -> dict[str, Any]:
    """A summary; ``held``: by open holds, in picodollars."""
    return {
        "workspace_id": found.workspace_id,
        "status": found.status,
        "enabled": found.enabled,
        "balance": format_usd(found.balance),
        "minimum_balance": format_usd(found.minimum),
        "low_balance_threshold": format_usd(found.low),
        "remaining": format_usd(found.balance - found.minimum),
        "held": None if held is None else format_usd(held),
        "available": None if held is None else format_usd(found.balance - found.minimum - held),
        "usage_count": found.usage_count,
        "usage_cost": format_usd(found.usage_cost),
        "payment_count": found.payment_count,
        "payment_total": format_usd(found.payment_total),
        "updated_at": None if found.updated_at is None else utc(found.updated_at),
    }


def glance(row: Glance) -> dict[str, Any]:
    """A line of the list of workspaces."""
    return {
        "workspace_id": row.workspace_id,
        "status": row.status,
        "enabled": row.balance >= row.minimum,
        "balance": format_usd(row.balance),
    }


_TRAVELS: Final[dict[str, Callable[[Any], Any]]] = {"usd": format_usd, "time": utc, "json": lambda value: value or {}}
"""How values of these kinds travel; those of other kinds as they are."""


def usage(row: UsageRow) -> dict[str, Any]:
    """A usage: the columns that are shown, each as its kind travels."""
    body: dict[str, Any] = {}
    for name in columns.SHOWN:
        value, travels = getattr(row, name), _TRAVELS.get(columns.KINDS[name])
        body[name] = value if travels is None else travels(value)
    body["estimated"] = row.estimated
    return body


def payment(row: PaymentRow) -> dict[str, Any]:
    """A payment."""
    return {
        "seq": row.seq,
        "payment_id": row.payment_id,
        "kind": row.kind,
        "amount": format_usd(row.amount),
        "balance_after": format_usd(row.balance_after),
        "transaction": row.transaction,
        "note": row.note,
        "occurred_at": utc(row.occurred_at),
        "recorded_at": utc(row.recorded_at),
    }


def grant(row: GrantNow) -> dict[str, Any]:
    """A grant."""
    return {
        "payment_id": row.payment_id,
        "amount": format_usd(row.amount),
        "left": format_usd(row.left),
        "expires_at": utc(row.expires_at),
        "priority": row.priority,
    }


def budget(row: BudgetNow) -> dict[str, Any]:
    """A budget."""
    return {
        **row.members(),
        "period_began_at": None if row.began_at is None else utc(row.began_at),
        "period_ends_at": None if row.ends_at is None else utc(row.ends_at),
    }


def status_change(row: StatusRow) -> dict[str, Any]:
    """A change of status."""
    return {
        "changed_at": utc(row.changed_at),
        "status_before": row.before,
        "status_after": row.after,
        "balance_after": format_usd(row.balance),
        "minimum_balance": format_usd(row.minimum),
        "low_balance_threshold": format_usd(row.low),
        "cause": row.cause,
        "cause_id": row.cause_id,
        "tool": row.tool,
        "amount": None if row.amount is None else format_usd(row.amount),
    }


def analysed(
    found: Analysis, starts: list[dt.datetime], span: str, by: str, where: zoneinfo.ZoneInfo
) -> dict[str, Any]:
    """An analysis; names beyond the first five are added up."""
    names = [total.name for total in found.totals]
    return {
        "span": span,
        "by": by,
        "zone": where.key,
        "unit": found.unit,
        "usages": found.usages,
        "cost": format_usd(found.cost),
        "cost_before": None if found.before is None else format_usd(found.before),
        "not_counted_yet": found.behind,
        "totals": [
            {"name": total.name, "usages": total.usages, "cost": format_usd(total.cost)} for total in found.totals
        ],
        "periods": [
            {
                "start": start.replace(tzinfo=where),
                "usages": period.usages,
                "cost": format_usd(period.cost),
                "costs": {name: format_usd(cost) for name, cost in zip(names, period.costs, strict=False) if cost},
                "high": period.high,
                "running": period.running,
            }
            for start, period in zip(starts, found.periods, strict=True)
        ],
    }
