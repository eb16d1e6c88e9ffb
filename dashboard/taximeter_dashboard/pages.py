"""The page: AI Tracking, one workspace at a time, in HTML.

Every tab, page and usage has an address of its own and works without JavaScript. With it, htmx asks for the same addresses
and gets the panel alone.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from psycopg import Connection
from starlette.responses import RedirectResponse, Response

from taximeter_dashboard import contents, exporting, filters, listing, panels, receipts, times
from taximeter_dashboard.errors import NotFound
from taximeter_dashboard.house import CurrentHouse, House, admit, viewer_of
from taximeter_dashboard.listing import Sort
from taximeter_dashboard.render import base, render, safe_path, wants_panel, wants_part, zone_of
from taximeter_dashboard.viewers import EVERY_WORKSPACE, OPERATOR, OWNER, STAFF, Viewer
from taximeter_db import prices, rollups
from taximeter_db.reading import access, filtered, payments, scope, summary, usages

WORKSPACES_A_PAGE = 50

Page = Annotated[int, Query(ge=1, le=10**12)]
Upto = Annotated[int | None, Query(ge=1, le=10**15)]
Seq = Annotated[int, Path(ge=1, le=10**15)]

router = APIRouter(include_in_schema=False)


def show(
    request: Request,
    house: House,
    conn: Connection[Any],
    viewer: Viewer,
    workspace_id: str,
    panel: str,
    template: str | None = None,
    **context: Any,
) -> Response:
    """The panel, within the whole page unless htmx asks for the panel alone, or a template is named."""
    now, where = dt.datetime.now(dt.UTC), zone_of(request)
    found = context.pop("found", None) or house.summary(conn, workspace_id)
    owner = viewer.role(workspace_id) == OWNER
    tabs = ["usages", "payments", "analysis", *(["settings"] if owner else [])]
    context |= {
        "panel": panel,
        "workspace_id": workspace_id,
        "card": panels.card(conn, found, house.settings.dashboard_credit_url, now, where),
        "viewer": viewer,
        "tabs": tabs,
        "home": f"{base(request)}/workspaces/{workspace_id}",
    }
    template = template or ("partial.html" if wants_panel(request) else "page.html")
    return render(request, template, now=now, where=where, **context)


@router.get("/")
def list_workspaces(
    request: Request, house: CurrentHouse, after: Annotated[str, Query(max_length=128)] = ""
) -> Response:
    """The workspaces of whoever is signed in; straight on where there is one."""
    with house.database() as conn:
        viewer = viewer_of(request, conn)
        among = viewer.workspace_ids
        if among is not None and len(among) == 1:
            return RedirectResponse(f"{base(request)}/workspaces/{among[0]}", 303)
        found = _listed(conn, viewer, after)
        if viewer.role(EVERY_WORKSPACE) == OPERATOR:
            scope.enter(conn, EVERY_WORKSPACE)  # no workspace has this id: it opens the log of looks and no rows
            access.log_look(conn, EVERY_WORKSPACE, viewer.subject, request.url.path[:1000])
    more = found[WORKSPACES_A_PAGE - 1].workspace_id if len(found) > WORKSPACES_A_PAGE else None
    return render(request, "workspaces.html", workspaces=found[:WORKSPACES_A_PAGE], more=more, viewer=viewer)


def _listed(conn: Connection[Any], viewer: Viewer, after: str) -> list[summary.Glance]:
    """A page of the list, and one more if there are more. A balance is for whoever may look at the workspace."""
    found: list[summary.Glance] = []
    while len(found) <= WORKSPACES_A_PAGE:
        some = summary.glances(conn, viewer.workspace_ids, after, WORKSPACES_A_PAGE + 1)
        found += [one for one in some if _may_look(conn, viewer, one.workspace_id)]
        if len(some) <= WORKSPACES_A_PAGE:
            break
        after = some[-1].workspace_id
    return found[: WORKSPACES_A_PAGE + 1]


def _may_look(conn: Connection[Any], viewer: Viewer, workspace_id: str) -> bool:
    if viewer.role(workspace_id) != STAFF:
        return True
    scope.enter(conn, workspace_id)
    return access.may_read(conn, workspace_id, viewer.subject)


@router.get("/workspaces/{workspace_id}")
@router.get("/workspaces/{workspace_id}/usages")
def show_usages(
    request: Request,
    house: CurrentHouse,
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
    with house.database() as conn:
        viewer = admit(request, conn, workspace_id)
        found = house.summary(conn, workspace_id)
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
        context["lines"] = panels.with_excerpts(conn, house, workspace_id, listed, zone_of(request))
        matched = context["matched"]
        counted, more = (matched.totals.usages, matched.totals.more) if matched else (found.usage_count, False)
        context["export"] = exporting.expect("usages", listed, counted, query=asked.query, more=more)
        if found.usage_count and not wants_part(request):
            rollups.follow(conn, workspace_id, 1_000)
            context["tools"], context["models"] = filtered.names(conn, workspace_id)
        rows = [line.row for line in context["lines"]]
        context["decimals"] = panels.decimals_max([row.cost for row in rows])
        context["decimals_after"] = panels.decimals_max([row.balance_after for row in rows])
        return show(request, house, conn, viewer, workspace_id, "usages", **context)


@router.get("/workspaces/{workspace_id}/usages/{seq}")
def show_usage(request: Request, house: CurrentHouse, workspace_id: str, seq: Seq) -> Response:
    """One usage with everything that is known of it: a page of its own, or the inside of a dialog."""
    with house.database() as conn:
        viewer = admit(request, conn, workspace_id)
        row = usages.get(conn, workspace_id, seq)
        if row is None:
            raise NotFound
        payload = house.payloads(conn, workspace_id, [row], contents.PAYLOAD_BYTES_MAX).get(seq)
        receipt = house.explain(conn, row) if house.explain else None
        context: dict[str, Any] = {
            "row": row,
            "parts": contents.parts(payload.data) if payload and payload.whole else [],
            "gone": panels.gone(payload, zone_of(request), dt.datetime.now(dt.UTC)),
            "receipt": receipts.view(row, receipt),
            "revised_at": prices.revised_at(conn, row.price_version),
            "late": (row.recorded_at - row.occurred_at).total_seconds() > 60,
            "home": f"{base(request)}/workspaces/{workspace_id}",
        }
        if wants_part(request):
            return render(request, "_usage.html", **context)
        return show(request, house, conn, viewer, workspace_id, "usage", **context)


@router.get("/workspaces/{workspace_id}/usages/{seq}/contents.json")
def download_contents(request: Request, house: CurrentHouse, workspace_id: str, seq: Seq) -> Response:
    """Input, output and metadata of a usage as a file, byte-exact."""
    with house.database() as conn:
        admit(request, conn, workspace_id)
        row = usages.get(conn, workspace_id, seq)
        payload = house.payloads(conn, workspace_id, [row], contents.PAYLOAD_BYTES_MAX).get(seq) if row else None
    if payload is None or not payload.whole:
        raise NotFound
    headers = {"content-disposition": f'attachment; filename="usage-{seq}.json"'}
    return Response(payload.data, media_type="application/json", headers=headers)


@router.get("/workspaces/{workspace_id}/payments")
def show_payments(
    request: Request,
    house: CurrentHouse,
    workspace_id: str,
    sort: Sort = "newest",
    page: Page = 1,
    upto: Upto = None,
) -> Response:
    """The tab of payments."""
    with house.database() as conn:
        viewer = admit(request, conn, workspace_id)
        found = house.summary(conn, workspace_id)
        place, lines = listing.by_page(conn, listing.PAYMENTS, found, sort, page, upto)
        return show(
            request,
            house,
            conn,
            viewer,
            workspace_id,
            "payments",
            found=found,
            lines=lines,
            place=place,
            export=exporting.expect("payments", lines, found.payment_count),
            decimals=panels.decimals_max([row.amount for row in lines]),
            decimals_after=panels.decimals_max([row.balance_after for row in lines]),
        )


@router.get("/workspaces/{workspace_id}/payments/{seq}")
def show_payment(request: Request, house: CurrentHouse, workspace_id: str, seq: Seq) -> Response:
    """One payment: a page of its own, or the inside of a dialog."""
    with house.database() as conn:
        viewer = admit(request, conn, workspace_id)
        row = payments.get(conn, workspace_id, seq)
        if row is None:
            raise NotFound
        context: dict[str, Any] = {
            "row": row,
            "late": (row.recorded_at - row.occurred_at).total_seconds() > 60,
            "home": f"{base(request)}/workspaces/{workspace_id}",
        }
        if wants_part(request):
            return render(request, "_payment.html", **context)
        return show(request, house, conn, viewer, workspace_id, "payment", **context)


@router.get("/zone")
def choose_zone(request: Request, to: Annotated[str, Query(max_length=64)] = "", back: str = "/") -> Response:
    """Remember in which zone this browser shows times, or ask for it."""
    back = safe_path(back, f"{base(request)}/")
    if not to:
        return render(request, "zone.html", back=back, zones=times.zones())
    answer = RedirectResponse(back, 303)
    answer.set_cookie(
        times.ZONE_COOKIE, times.zone(to).key, max_age=365 * 86400, samesite="lax", path=base(request) or "/"
    )
    return answer
