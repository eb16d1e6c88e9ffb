"""Rows of the ledger as they travel: exact decimal strings, times in UTC."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import TYPE_CHECKING, Any

from taximeter_db.money import format_usd
from taximeter_db.reading import PaymentRow, Summary, UsageRow
from taximeter_db.reading.status_changes import StatusRow

if TYPE_CHECKING:
    from taximeter_dashboard.analysis import Analysis


def utc(moment: dt.datetime) -> dt.datetime:
    """A moment in UTC."""
    return moment.astimezone(dt.UTC)


def summary(found: Summary) -> dict[str, Any]:
    """A summary."""
    return {
        "workspace_id": found.workspace_id,
        "status": found.status,
        "enabled": found.enabled,
        "balance": format_usd(found.balance),
        "minimum_balance": format_usd(found.minimum),
        "low_balance_threshold": format_usd(found.low),
        "remaining": format_usd(found.balance - found.minimum),
        "usage_count": found.usage_count,
        "usage_cost": format_usd(found.usage_cost),
        "payment_count": found.payment_count,
        "payment_total": format_usd(found.payment_total),
        "updated_at": None if found.updated_at is None else utc(found.updated_at),
    }


def usage(row: UsageRow) -> dict[str, Any]:
    """A usage."""
    return {
        "seq": row.seq,
        "event_id": row.event_id,
        "tool": row.tool,
        "provider": row.provider,
        "model": row.model,
        "quantities": row.quantities,
        "cost": format_usd(row.cost),
        "balance_after": format_usd(row.balance_after),
        "occurred_at": utc(row.occurred_at),
        "recorded_at": utc(row.recorded_at),
        "price_version": row.price_version,
        "estimated": row.estimated,
    }


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
