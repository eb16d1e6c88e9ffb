"""The JSON API, version 1."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request
from psycopg import Connection
from starlette.responses import Response

from taximeter_dashboard import analysis, api_bodies, api_parameters, api_problems, cursors, filters, listing, times
from taximeter_dashboard import api_documents as documents
from taximeter_dashboard.errors import NotFound
from taximeter_dashboard.house import CurrentHouse, House, admit
from taximeter_dashboard.listing import Sort
from taximeter_db import rollups
from taximeter_db.reading import UsageRow, filtered, status_changes, usages

PAYLOAD_BYTES_MAX = 32 * 1024 * 1024

WorkspaceId = Annotated[str, Path(max_length=128, examples=["acme"])]
SortQuery = Annotated[Sort, Query(description="By the order of booking.")]
Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[
    str,
    Query(
        description="`next` of the page before; empty for the first page. One of another list is refused.",
        json_schema_extra={"format": "cursor"},
    ),
]
Zone = Annotated[
    str,
    Query(
        max_length=64,
        description="Whose days are meant: an IANA name.",
        examples=["Europe/Riga"],
        json_schema_extra={"format": "time-zone"},
    ),
]

router = APIRouter(
    prefix="/api/v1/workspaces/{workspace_id}",
    responses=api_problems.PROBLEMS,
    dependencies=[Depends(api_parameters.refuse_unknown)],
)

# Quantities stay exact: a number with six decimals beyond 2^53 has no float.
_encode = msgspec.json.Encoder(decimal_format="number").encode


def _json(body: Any) -> Response:
    return Response(_encode(body), media_type="application/json")


@router.get("/summary", response_model=documents.SummaryDocument)
def read_summary(request: Request, house: CurrentHouse, workspace_id: WorkspaceId) -> Response:
    """Balance, limits, status and totals."""
    with house.database() as conn:
        admit(request, conn, workspace_id)
        return _json(api_bodies.summary(house.summary(conn, workspace_id)))


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
    asked: Annotated[filters.Asked, Depends(filters.ask_api)],
    sort: SortQuery = "newest",
    limit: Limit = 20,
    cursor: Cursor = "",
    zone: Zone = "UTC",
) -> Response:
    """Usages in the order of booking, all of them or those that match a filter."""
    if not asked.active:
        return _list(request, house, workspace_id, listing.USAGES, api_bodies.usage, sort, limit, cursor)
    where = times.zone_named(zone)
    wanted = asked.wanted(where)
    scope = f"usages/{workspace_id}/{sort}/{asked.query}/{where.key}"
    with house.database() as conn:
        admit(request, conn, workspace_id)
        return _json(_matching(house, conn, workspace_id, wanted, scope, sort, limit, cursor))


def _matching(
    house: House,
    conn: Connection[Any],
    workspace_id: str,
    wanted: filtered.Filter,
    scope: str,
    sort: str,
    limit: int,
    cursor: str,
) -> dict[str, Any]:
    secret, newest = house.settings.dashboard_secret, sort == "newest"
    place = cursors.read(secret, scope, cursor) if cursor else None
    bound: dict[str, Any] = {} if place is None else {"before" if newest else "after": place}
    rollups.follow(conn, workspace_id, filters.ROLL_UP_MAX)
    known = filtered.ids(conn, workspace_id, wanted)
    page = filtered.search(conn, workspace_id, wanted, newest=newest, limit=limit + 1, known=known, **bound)
    rows = page.rows[:limit]
    last = rows[-1].seq if len(page.rows) > limit else page.place
    totals = filtered.totals(conn, workspace_id, wanted, known=known)
    return {
        "items": [api_bodies.usage(row) for row in rows],
        "next": None if last is None else cursors.write(secret, scope, last),
        "total": None if totals.more or totals.cost is None else totals.usages,
    }


@router.get("/usages/{event_id:path}", response_model=documents.UsageDetailsDocument)
def read_usage(
    request: Request,
    house: CurrentHouse,
    workspace_id: WorkspaceId,
    event_id: Annotated[str, Path(max_length=255, examples=["0199c7f2-6d0e-7a55-8f3c-2f4f8f0c9a11"])],
) -> Response:
    """One usage with its contents and its receipt."""
    with house.database() as conn:
        admit(request, conn, workspace_id)
        row = find_usage(conn, workspace_id, event_id)
        payload = house.payloads(conn, workspace_id, [row], PAYLOAD_BYTES_MAX).get(row.seq)
        receipt = house.explain(conn, row) if house.explain else None
    contents = msgspec.Raw(payload.data) if payload is not None and payload.whole else None
    return _json({**api_bodies.usage(row), "receipt": receipt, "contents": contents})


def find_usage(conn: Connection[Any], workspace_id: str, event_id: str) -> UsageRow:
    """A usage by its event id. Raises NotFound."""
    printable = event_id.isascii() and event_id.isprintable()
    row = usages.find(conn, workspace_id, event_id) if printable else None
    if row is None:
        raise NotFound
    return row


@router.get("/payments", response_model=documents.PaymentsDocument)
def list_payments(
    request: Request,
    house: CurrentHouse,
    workspace_id: WorkspaceId,
    sort: SortQuery = "newest",
    limit: Limit = 20,
    cursor: Cursor = "",
) -> Response:
    """Payments in the order of booking."""
    return _list(request, house, workspace_id, listing.PAYMENTS, api_bodies.payment, sort, limit, cursor)


def _list(
    request: Request,
    house: House,
    workspace_id: str,
    log: listing.Log[Any],
    body: Any,
    sort: Sort,
    limit: int,
    cursor: str,
) -> Response:
    """A page of a whole log."""
    secret, scope = house.settings.dashboard_secret, f"{log.name}/{workspace_id}/{sort}"
    place = cursors.read(secret, scope, cursor) if cursor else None
    with house.database() as conn:
        admit(request, conn, workspace_id)
        count = log.count(house.summary(conn, workspace_id))
        rows, following = listing.from_number(conn, log, workspace_id, sort, place, limit, count)
    items = [body(row) for row in rows]
    return _json(
        {
            "items": items,
            "next": None if following is None else cursors.write(secret, scope, following),
            "total": count,
        }
    )


@router.get("/status-changes", response_model=documents.StatusChangesDocument)
def list_status_changes(
    request: Request, house: CurrentHouse, workspace_id: WorkspaceId, limit: Limit = 20, cursor: Cursor = ""
) -> Response:
    """When the status changed and which usage, payment or setting changed it, newest first."""
    secret, scope = house.settings.dashboard_secret, f"status-changes/{workspace_id}"
    before = cursors.read(secret, scope, cursor) if cursor else None
    with house.database() as conn:
        admit(request, conn, workspace_id)
        found = status_changes.latest(conn, workspace_id, before=before, limit=limit + 1)
        since = status_changes.kept_since(conn)
    more = len(found) > limit
    return _json(
        {
            "items": [api_bodies.status_change(row) for row in found[:limit]],
            "next": cursors.write(secret, scope, found[limit - 1].id) if more else None,
            "kept_since": api_bodies.utc(since),
        }
    )


@router.get("/analysis", response_model=documents.AnalysisDocument)
def read_analysis(
    request: Request,
    house: CurrentHouse,
    workspace_id: WorkspaceId,
    span: Annotated[analysis.Span, Query(description="24 hours, 30 days or 12 months, up to now.")] = "month",
    by: Annotated[Literal["tool", "model"], Query()] = "tool",
    zone: Zone = "UTC",
) -> Response:
    """Cost over time, by tool or model, with the span before it to compare with."""
    where = times.zone_named(zone)
    now = times.now()
    with house.database() as conn:
        admit(request, conn, workspace_id)
        found = analysis.analyse(conn, workspace_id, span, by, now, where)
    return _json(api_bodies.analysed(found, analysis.starts(now, where, span), span, by, where))
