"""The JSON API, version 1."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request
from psycopg import Connection
from starlette.responses import Response

from taximeter_dashboard import workspaces
from taximeter_dashboard.api import bodies, documents, parameters, problems
from taximeter_dashboard.api.answers import Limit, WorkspaceId, as_json
from taximeter_dashboard.context import AppContext, CurrentContext, authorize, viewer_of
from taximeter_dashboard.errors import NotFoundError, ProblemError
from taximeter_dashboard.formatting import times
from taximeter_dashboard.reading import cursors, filters, listing, spending
from taximeter_dashboard.reading.listing import Sort
from taximeter_db import status_changes
from taximeter_db.budgets import reading as budgets
from taximeter_db.ledger import rollups
from taximeter_db.queries import filtered, summary, usages

PAYLOAD_BYTES_MAX = 32 * 1024 * 1024

SortQuery = Annotated[Sort, Query(description="By the order of booking.")]
Cursor = Annotated[
    str,
    Query(
        description="`next` of the page before; empty for the first page. One of another list is refused.",
        json_schema_extra={"format": "cursor"},
    ),
]
After = Annotated[
    int | None,
    Query(
        ge=0,
        le=10**15,
        description="Only what was booked after this `seq`, oldest first whatever `sort` says: for programs that follow the"
        " log. Ask again with the last `seq` that you have seen.",
        examples=[1204],
    ),
]
Known = Annotated[
    str | None,
    Query(max_length=128, pattern=filters.NO_NUL, description="What is known of the call.", examples=["chat"]),
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


class Part(msgspec.Struct, frozen=True):
    """Which part of a list is asked for."""

    sort: Sort
    limit: int
    cursor: str
    after: int | None

    def place(self, secret: str, scope: str) -> int | None:
        """Where the part begins by its cursor; None without one. Raises ProblemError."""
        return cursors.read(secret, scope, self.cursor) if self.cursor else None


def ask_part(sort: SortQuery = "newest", limit: Limit = 20, cursor: Cursor = "", after: After = None) -> Part:
    """The part of a list that a request asks for; what follows a number runs upwards. Raises ProblemError."""
    if after is not None and cursor:
        raise ProblemError("after: Give `after` or `cursor`, not both.", status=422, title="Not valid")
    return Part(sort if after is None else "oldest", limit, cursor, after)


AskedPart = Annotated[Part, Depends(ask_part)]

router = APIRouter(
    prefix="/api/v1/workspaces/{workspace_id}",
    responses=problems.PROBLEMS,
    dependencies=[Depends(parameters.refuse_unknown)],
)

lists = APIRouter(prefix="/api/v1", responses=problems.LIST_PROBLEMS, dependencies=[Depends(parameters.refuse_unknown)])
health = APIRouter()


@router.get("/summary", response_model=documents.SummaryDocument)
def read_summary(request: Request, app_context: CurrentContext, workspace_id: WorkspaceId) -> Response:
    """Balance, limits, status and totals."""
    with app_context.database() as conn:
        authorize(request, conn, workspace_id)
        found = app_context.summary(conn, workspace_id)
    return as_json(bodies.summary(found, app_context.held(workspace_id)))


@router.get("/enabled", response_model=documents.EnabledDocument)
def read_enabled(  # noqa: PLR0913 -- what is known of the call
    request: Request,
    app_context: CurrentContext,
    workspace_id: WorkspaceId,
    user: Known = None,
    tool: Known = None,
    model: Known = None,
    tag: Annotated[
        list[Annotated[str, Query(max_length=97, pattern=filters.NO_NUL)]],
        Query(
            max_length=8, description="`KEY=VALUE`, as the usage will bear it; repeatable.", examples=[["team=search"]]
        ),
    ] = [],  # noqa: B006 -- FastAPI copies it
) -> Response:
    """Whether AI is enabled and no hard budget that concerns such a call is used up, for tools without Redis.

    A workspace that was never seen is as a new one will be.
    """
    with app_context.database() as conn:
        authorize(request, conn, workspace_id, logged=False, unseen=True)
        found = app_context.summary(conn, workspace_id)
        budget = budgets.used_up(conn, workspace_id, user=user, tool=tool, model=model, tags=tag)
    enabled = found.enabled and budget is None
    named = {} if budget is None else {"budget": budget}
    return as_json({"workspace_id": workspace_id, "enabled": enabled, "status": found.status, **named})


@router.get("/usages", response_model=documents.UsagesDocument)
def list_usages(
    request: Request,
    app_context: CurrentContext,
    workspace_id: WorkspaceId,
    asked: Annotated[filters.Asked, Depends(filters.ask_api)],
    part: AskedPart,
    zone: Zone = "UTC",
) -> Response:
    """Usages in the order of booking, all of them or those that match a filter."""
    where = times.zone_named(zone)
    if not asked.active:
        return _list(request, app_context, workspace_id, listing.USAGES, bodies.usage, part)
    wanted = asked.wanted(where)
    scope = f"usages/{workspace_id}/{part.sort}/{asked.query}/{where.key}"
    with app_context.database() as conn:
        authorize(request, conn, workspace_id)
        return as_json(_matching(app_context, conn, workspace_id, wanted, scope, part))


def _matching(
    app_context: AppContext,
    conn: Connection[Any],
    workspace_id: str,
    wanted: filtered.Filter,
    scope: str,
    part: Part,
) -> dict[str, Any]:
    secret, newest, limit = app_context.settings.dashboard_secret, part.sort == "newest", part.limit
    place = part.after if part.after is not None else part.place(secret, scope)
    bound: dict[str, Any] = {} if place is None else {"before" if newest else "after": place}
    rollups.follow(conn, workspace_id, filters.ROLL_UP_MAX)
    filters.require_named(conn, workspace_id, wanted)
    known = filtered.ids(conn, workspace_id, wanted)
    page = filtered.search(conn, workspace_id, wanted, filtered.Window(newest=newest, limit=limit + 1, **bound), known)
    rows = page.rows[:limit]
    last = rows[-1].seq if len(page.rows) > limit else page.place
    totals = filtered.totals(conn, workspace_id, wanted, known=known)
    return {
        "items": [bodies.usage(row) for row in rows],
        "next": None if last is None else cursors.write(secret, scope, last),
        "total": None if totals.more or totals.cost is None else totals.usages,
    }


@router.get("/usages/{event_id:path}", response_model=documents.UsageDetailsDocument)
def read_usage(
    request: Request,
    app_context: CurrentContext,
    workspace_id: WorkspaceId,
    event_id: Annotated[str, Path(max_length=255, examples=["0199c7f2-6d0e-7a55-8f3c-2f4f8f0c9a11"])],
) -> Response:
    """One usage with its contents and its receipt."""
    with app_context.database() as conn:
        authorize(request, conn, workspace_id)
        row = usages.find(conn, workspace_id, event_id)
        if row is None:
            raise NotFoundError
        payload = app_context.payloads(conn, workspace_id, [row], PAYLOAD_BYTES_MAX).get(row.seq)
        receipt = app_context.explain(conn, row) if app_context.explain else None
    contents = msgspec.Raw(payload.data) if payload is not None and payload.whole else None
    return as_json({**bodies.usage(row), "receipt": receipt, "contents": contents})


@router.get("/payments", response_model=documents.PaymentsDocument)
def list_payments(
    request: Request,
    app_context: CurrentContext,
    workspace_id: WorkspaceId,
    part: AskedPart,
) -> Response:
    """Payments in the order of booking."""
    return _list(request, app_context, workspace_id, listing.PAYMENTS, bodies.payment, part)


def _list(
    request: Request,
    app_context: AppContext,
    workspace_id: str,
    log: listing.Log[Any],
    body: Any,
    part: Part,
) -> Response:
    """A page of a whole log."""
    secret, scope = app_context.settings.dashboard_secret, f"{log.name}/{workspace_id}/{part.sort}"
    place = part.after + 1 if part.after is not None else part.place(secret, scope)
    with app_context.database() as conn:
        authorize(request, conn, workspace_id)
        count = log.count(app_context.summary(conn, workspace_id))
        rows, following = listing.Part(part.sort, place, part.limit, count).read(conn, log, workspace_id)
    items = [body(row) for row in rows]
    return as_json(
        {
            "items": items,
            "next": None if following is None else cursors.write(secret, scope, following),
            "total": count,
        }
    )


@router.get("/status-changes", response_model=documents.StatusChangesDocument)
def list_status_changes(
    request: Request, app_context: CurrentContext, workspace_id: WorkspaceId, limit: Limit = 20, cursor: Cursor = ""
) -> Response:
    """When the status changed and which usage, payment or setting changed it, newest first."""
    secret, scope = app_context.settings.dashboard_secret, f"status-changes/{workspace_id}"
    before = cursors.read(secret, scope, cursor) if cursor else None
    with app_context.database() as conn:
        authorize(request, conn, workspace_id)
        found = status_changes.latest(conn, workspace_id, before=before, limit=limit + 1)
        since = status_changes.kept_since(conn)
    more = len(found) > limit
    return as_json(
        {
            "items": [bodies.status_change(row) for row in found[:limit]],
            "next": cursors.write(secret, scope, found[limit - 1].id) if more else None,
            "kept_since": bodies.utc(since),
        }
    )


@router.get("/analysis", response_model=documents.AnalysisDocument)
def read_analysis(  # noqa: PLR0913 -- the terms of a question to the page
    request: Request,
    app_context: CurrentContext,
    workspace_id: WorkspaceId,
    span: Annotated[spending.Span, Query(description="24 hours, 30 days or 12 months, up to now.")] = "month",
    by: Annotated[spending.Split, Query(description="By what to split; `tag` takes the key in `tag`.")] = "tool",
    tag: Annotated[
        str, Query(pattern=r"^([a-z0-9_.\-]{1,32})?$", description="Key of the tag to split by.", examples=["team"])
    ] = "",
    zone: Zone = "UTC",
) -> Response:
    """Cost over time, by tool, model, user or a tag, with the span before it to compare with."""
    if (by == "tag") != bool(tag):
        raise ProblemError("tag: the key of a tag goes with by=tag.", status=422, title="Not valid")
    where = times.zone_named(zone)
    now = times.now()
    with app_context.database() as conn:
        authorize(request, conn, workspace_id)
        found = spending.analyse(conn, spending.Question(workspace_id, span, by, where, tag), now)
    return as_json(
        bodies.analysed(found, spending.starts(now, where, span), span, by if by != "tag" else f"tag:{tag}", where)
    )


@lists.get("/workspaces", response_model=documents.WorkspacesDocument)
def list_workspaces(
    request: Request,
    app_context: CurrentContext,
    limit: Limit = 20,
    after: Annotated[str, Query(max_length=128, pattern=filters.NO_NUL, description="The last id that you have.")] = "",
) -> Response:
    """The workspaces of whoever asks, by id; of an operator, every one. Who holds one that nothing has named yet misses it."""
    with app_context.database() as conn:
        viewer = viewer_of(request, conn)
        glances, _ = workspaces.listed(conn, viewer, after, limit)
        workspaces.log_listing(request, conn, viewer)
    return as_json({"items": [bodies.glance(glance) for glance in glances]})


@health.get("/health", include_in_schema=False)
def read_health(app_context: CurrentContext) -> Response:
    """Whether this process can serve: 200, or 503 where the database does not answer. For load balancers; needs no token."""
    with app_context.database() as conn:
        summary.versions(conn, [])
    return as_json({"status": "ok"})
