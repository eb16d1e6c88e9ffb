"""The JSON API, version 1."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from taximeter_dashboard import api_documents as documents
from taximeter_dashboard import cursors
from taximeter_dashboard.errors import NotFound
from taximeter_dashboard.house import CurrentHouse, House, admit
from taximeter_db.money import format_usd
from taximeter_db.reading import PaymentRow, UsageRow, payments, summary, usages

PAYLOAD_BYTES_MAX = 32 * 1024 * 1024
EVENT_ID_MAX = 255

WorkspaceId = Annotated[str, Path(max_length=128, examples=["acme"])]
Sort = Annotated[Literal["newest", "oldest"], Query(description="By the order of booking.")]
Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[str | None, Query(max_length=200, description="`next` of the page before.")]

router = APIRouter(prefix="/api/v1/workspaces/{workspace_id}", responses=documents.PROBLEMS)

# Quantities stay exact: a number with six decimals beyond 2^53 has no float.
_encode = msgspec.json.Encoder(decimal_format="number").encode


def _json(body: Any) -> Response:
    return Response(_encode(body), media_type="application/json")


@router.get("/summary", response_model=documents.SummaryDocument)
def read_summary(request: Request, house: CurrentHouse, workspace_id: WorkspaceId) -> Response:
    """Balance, limits, status and totals."""
    with house.database() as conn:
        admit(request, conn, workspace_id)
        return _json(summary_body(house.summary(conn, workspace_id)))


@router.get("/enabled", response_model=documents.EnabledDocument)
def read_enabled(request: Request, house: CurrentHouse, workspace_id: WorkspaceId) -> Response:
    """Whether AI is enabled, for tools without Redis."""
    with house.database() as conn:
        admit(request, conn, workspace_id)
        found = house.summary(conn, workspace_id)
    return _json({"workspace_id": workspace_id, "enabled": found.enabled, "status": found.status})


@router.get("/usages", response_model=documents.UsagesDocument)
def list_usages(
    request: Request,
    house: CurrentHouse,
    workspace_id: WorkspaceId,
    sort: Sort = "newest",
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """Usages in the order of booking."""
    with house.database() as conn:
        admit(request, conn, workspace_id)
        count = summary.read(conn, workspace_id).usage_count
        first, last, following = _span(house, f"usages/{workspace_id}/{sort}", sort, limit, cursor, count)
        rows = usages.between(conn, workspace_id, first, last)
    items = [usage_body(row) for row in (rows if sort == "oldest" else reversed(rows))]
    return _json({"items": items, "next": following, "total": count})


@router.get("/usages/{event_id:path}", response_model=documents.UsageDetailsDocument)
def read_usage(
    request: Request, house: CurrentHouse, workspace_id: WorkspaceId, event_id: Annotated[str, Path(max_length=255)]
) -> Response:
    """One usage with its contents and its receipt."""
    with house.database() as conn:
        admit(request, conn, workspace_id)
        if not event_id.isascii() or not event_id.isprintable():
            raise NotFound
        row = usages.find(conn, workspace_id, event_id)
        if row is None:
            raise NotFound
        payload = usages.payloads(conn, workspace_id, [row], PAYLOAD_BYTES_MAX).get(row.seq)
        receipt = house.explain(conn, row) if house.explain else None
    contents = msgspec.Raw(payload.data) if payload is not None and payload.whole else None
    return _json({**usage_body(row), "receipt": receipt, "contents": contents})


@router.get("/payments", response_model=documents.PaymentsDocument)
def list_payments(
    request: Request,
    house: CurrentHouse,
    workspace_id: WorkspaceId,
    sort: Sort = "newest",
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """Payments in the order of booking."""
    with house.database() as conn:
        admit(request, conn, workspace_id)
        count = summary.read(conn, workspace_id).payment_count
        first, last, following = _span(house, f"payments/{workspace_id}/{sort}", sort, limit, cursor, count)
        rows = payments.between(conn, workspace_id, first, last)
    items = [payment_body(row) for row in (rows if sort == "oldest" else reversed(rows))]
    return _json({"items": items, "next": following, "total": count})


def _span(
    house: House, scope: str, sort: str, limit: int, cursor: str | None, count: int
) -> tuple[int, int, str | None]:
    """First and last number of a page, and the cursor of the next one."""
    secret = house.settings.dashboard_secret
    place = cursors.read(secret, scope, cursor) if cursor else None
    if sort == "oldest":
        first = place or 1
        last = min(first + limit - 1, count)
        return first, last, cursors.write(secret, scope, last + 1) if last < count else None
    last = count if place is None else min(place, count)
    first = max(1, last - limit + 1)
    return first, last, cursors.write(secret, scope, first - 1) if first > 1 else None


def summary_body(found: summary.Summary) -> dict[str, Any]:
    """A summary as it travels."""
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
        "updated_at": found.updated_at,
    }


def usage_body(row: UsageRow) -> dict[str, Any]:
    """A usage as it travels."""
    return {
        "seq": row.seq,
        "event_id": row.event_id,
        "tool": row.tool,
        "provider": row.provider,
        "model": row.model,
        "quantities": row.quantities,
        "cost": format_usd(row.cost),
        "balance_after": format_usd(row.balance_after),
        "occurred_at": _utc(row.occurred_at),
        "recorded_at": _utc(row.recorded_at),
        "price_version": row.price_version,
        "estimated": row.estimated,
    }


def payment_body(row: PaymentRow) -> dict[str, Any]:
    """A payment as it travels."""
    return {
        "seq": row.seq,
        "payment_id": row.payment_id,
        "kind": row.kind,
        "amount": format_usd(row.amount),
        "balance_after": format_usd(row.balance_after),
        "transaction": row.transaction,
        "note": row.note,
        "occurred_at": _utc(row.occurred_at),
        "recorded_at": _utc(row.recorded_at),
    }


def _utc(moment: dt.datetime) -> dt.datetime:
    return moment.astimezone(dt.UTC)
