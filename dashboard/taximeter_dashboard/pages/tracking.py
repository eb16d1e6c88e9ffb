"""The page: AI Tracking, one workspace at a time, in HTML.

Every tab, page and usage has an address of its own and works without JavaScript. With it, htmx asks for the same addresses
and gets the panel alone.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import RedirectResponse, Response

from taximeter_dashboard import workspaces
from taximeter_dashboard.auth.viewers import OWNER
from taximeter_dashboard.context import CurrentContext, WorkspaceContext, authorize, viewer_of
from taximeter_dashboard.database import PATIENT_SECONDS, TRANSACTION_SECONDS
from taximeter_dashboard.errors import NotFoundError
from taximeter_dashboard.export import estimate
from taximeter_dashboard.formatting import contents, receipts, times
from taximeter_dashboard.formatting.times import zone_of
from taximeter_dashboard.pages import panels
from taximeter_dashboard.pages.render import base, render, safe_path, wants_panel, wants_part
from taximeter_dashboard.reading import filters, listing
from taximeter_dashboard.reading.listing import Sort
from taximeter_db.ledger import grants, rollups
from taximeter_db.prices import store
from taximeter_db.queries import filtered, labels, payments, usages
from taximeter_db.statements import pdf

WORKSPACES_A_PAGE = 50

Page = Annotated[int, Query(ge=1, le=10**12)]
Upto = Annotated[int | None, Query(ge=1, le=10**15)]
Seq = Annotated[int, Path(ge=1, le=10**15)]

router = APIRouter(include_in_schema=False)


def show(workspace: WorkspaceContext, panel: str, template: str | None = None, **context: Any) -> Response:
    """The panel, within the whole page unless htmx asks for the panel alone, or a template is named."""
    request, app_context, conn, viewer, workspace_id = workspace
    now, where = dt.datetime.now(dt.UTC), zone_of(request)
    found = context.pop("found", None) or workspace.summary()
    owner = viewer.role(workspace_id) == OWNER
    tabs = ["usages", "payments", "statements", "analysis", "budgets", *(["notices", "settings"] if owner else [])]
    context |= {
        "panel": panel,
        "workspace_id": workspace_id,
        "card": panels.card(
            conn, found, app_context.settings.dashboard_credit_url, now, where, app_context.held(workspace_id)
        ),
        "viewer": viewer,
        "tabs": tabs,
        "is_owner": owner,
        "home": f"{base(request)}/workspaces/{workspace_id}",
    }
    template = template or ("partial.html" if wants_panel(request) else "page.html")
    return render(request, template, now=now, where=where, **context)


@router.get("/")
def list_workspaces(
    request: Request, app_context: CurrentContext, after: Annotated[str, Query(max_length=128)] = ""
) -> Response:
    """The workspaces of whoever is signed in; straight on where there is one."""
    with app_context.database() as conn:
        viewer = viewer_of(request, conn)
        among = viewer.workspace_ids
        if among is not None and len(among) == 1:
            return RedirectResponse(f"{base(request)}/workspaces/{among[0]}", 303)
        glances, more = workspaces.listed(conn, viewer, after, WORKSPACES_A_PAGE)
        workspaces.log_listing(request, conn, viewer)
    return render(request, "workspaces.html", workspaces=glances, more=more, viewer=viewer)


@router.get("/workspaces/{workspace_id}")
@router.get("/workspaces/{workspace_id}/usages")
def show_usages(  # noqa: PLR0913 -- the parameters of the address
    request: Request,
    app_context: CurrentContext,
    workspace_id: str,
    asked: Annotated[filters.Asked, Depends(filters.ask)],
    sort: Sort = "newest",
    page: Page = 1,
    upto: Upto = None,
    before: filters.Bound = None,
    after: filters.Bound = None,
    end: Literal["1"] | None = None,
    count: Literal["exactly"] | None = None,
    at: Annotated[str, Query(max_length=16)] = "",
) -> Response:
    """The tab of usages: numbered pages of all, or pages of what matches a filter."""
    # An exact count takes as long as it takes.
    with app_context.database(seconds=PATIENT_SECONDS if count else TRANSACTION_SECONDS) as conn:
        viewer = authorize(request, conn, workspace_id)
        found = app_context.summary(conn, workspace_id)
        context: dict[str, Any] = {"found": found, "asked": asked, "sort": sort, "matched": None}
        if asked.active:
            place = next(
                ((kind, at or 0) for kind, at in (("before", before), ("after", after)) if at is not None), None
            )
            place = ("end", 0) if end else place
            if at:
                place = filters.place_at(conn, workspace_id, at, sort, zone_of(request))
            wanted = asked.wanted(zone_of(request))
            matched = filters.find(conn, workspace_id, wanted, sort, place, exactly=count == "exactly")
            # Neighbours carry the number of their page; whoever goes to a time does not know it.
            number = None if at or (place and page == 1 and not end) else matched.last() if end else page
            context |= {"matched": matched, "number": number, "at": at}
            listed = context["matched"].rows
        else:
            context["place"], listed = listing.by_page(conn, listing.USAGES, found, sort, page, upto)
        context["lines"] = panels.with_excerpts(conn, app_context, workspace_id, listed, zone_of(request))
        matched = context["matched"]
        counted, more = (matched.totals.usages, matched.totals.more) if matched else (found.usage_count, False)
        context["export"] = estimate.expect("usages", listed, counted, query=asked.query, more=more)
        if found.usage_count and not wants_part(request):
            rollups.follow(conn, workspace_id, 1_000)
            context["names"] = filtered.names(conn, workspace_id)
            context["labels"] = labels.of(conn, workspace_id)
        rows = [line.row for line in context["lines"]]
        context["decimals"] = panels.decimals_max([row.cost for row in rows])
        context["decimals_after"] = panels.decimals_max([row.balance_after for row in rows])
        return show(WorkspaceContext(request, app_context, conn, viewer, workspace_id), "usages", **context)


@router.get("/workspaces/{workspace_id}/usages/{seq}")
def show_usage(request: Request, app_context: CurrentContext, workspace_id: str, seq: Seq) -> Response:
    """One usage with everything that is known of it: a page of its own, or the inside of a dialog."""
    with app_context.database() as conn:
        viewer = authorize(request, conn, workspace_id)
        row = usages.get(conn, workspace_id, seq)
        if row is None:
            raise NotFoundError
        payload = app_context.payloads(conn, workspace_id, [row], contents.PAYLOAD_BYTES_MAX).get(seq)
        receipt = app_context.explain(conn, row) if app_context.explain else None
        context: dict[str, Any] = {
            "row": row,
            "parts": contents.parts(payload.data) if payload and payload.whole else [],
            "other_labels": panels.other_labels(row),
            "gone": panels.gone(payload, zone_of(request), dt.datetime.now(dt.UTC)),
            "receipt": receipts.view(row, receipt),
            "revised_at": store.revised_at(conn, row.price_version),
            "late": (row.recorded_at - row.occurred_at).total_seconds() > 60,
            "home": f"{base(request)}/workspaces/{workspace_id}",
        }
        if wants_part(request):
            return render(request, "_usage.html", **context)
        return show(WorkspaceContext(request, app_context, conn, viewer, workspace_id), "usage", **context)


@router.get("/workspaces/{workspace_id}/usages/{seq}/contents.json")
def download_contents(request: Request, app_context: CurrentContext, workspace_id: str, seq: Seq) -> Response:
    """Input, output and metadata of a usage as a file, byte-exact."""
    with app_context.database() as conn:
        authorize(request, conn, workspace_id)
        row = usages.get(conn, workspace_id, seq)
        payload = app_context.payloads(conn, workspace_id, [row], contents.PAYLOAD_BYTES_MAX).get(seq) if row else None
    if payload is None or not payload.whole:
        raise NotFoundError
    headers = {"content-disposition": f'attachment; filename="usage-{seq}.json"'}
    return Response(payload.data, media_type="application/json", headers=headers)


@router.get("/workspaces/{workspace_id}/payments")
def show_payments(
    request: Request,
    app_context: CurrentContext,
    workspace_id: str,
    sort: Sort = "newest",
    page: Page = 1,
    upto: Upto = None,
) -> Response:
    """The tab of payments."""
    with app_context.database() as conn:
        viewer = authorize(request, conn, workspace_id)
        found = app_context.summary(conn, workspace_id)
        place, lines = listing.by_page(conn, listing.PAYMENTS, found, sort, page, upto)
        return show(
            WorkspaceContext(request, app_context, conn, viewer, workspace_id),
            "payments",
            found=found,
            lines=lines,
            place=place,
            grants=grants.standing(conn, workspace_id),
            export=estimate.expect("payments", lines, found.payment_count),
            decimals=panels.decimals_max([row.amount for row in lines]),
            decimals_after=panels.decimals_max([row.balance_after for row in lines]),
        )


@router.get("/workspaces/{workspace_id}/payments/{seq}")
def show_payment(request: Request, app_context: CurrentContext, workspace_id: str, seq: Seq) -> Response:
    """One payment: a page of its own, or the inside of a dialog."""
    with app_context.database() as conn:
        viewer = authorize(request, conn, workspace_id)
        row = payments.get(conn, workspace_id, seq)
        if row is None:
            raise NotFoundError
        context: dict[str, Any] = {
            "row": row,
            "late": (row.recorded_at - row.occurred_at).total_seconds() > 60,
            "home": f"{base(request)}/workspaces/{workspace_id}",
            "has_pdf": pdf.installed(),
        }
        if wants_part(request):
            return render(request, "_payment.html", **context)
        return show(WorkspaceContext(request, app_context, conn, viewer, workspace_id), "payment", **context)


@router.get("/zone")
def choose_zone(request: Request, to: Annotated[str, Query(max_length=64)] = "", back: str = "/") -> Response:
    """Remember in which zone this browser shows times, or ask for it."""
    back = safe_path(back, f"{base(request)}/")
    if not to:
        return render(request, "zone.html", back=back, zones=times.zones())
    answer = RedirectResponse(back, 303)
    answer.set_cookie(
        times.ZONE_COOKIE, times.zone_named(to).key, max_age=365 * 86400, samesite="lax", path=base(request) or "/"
    )
    return answer
