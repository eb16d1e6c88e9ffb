"""The settings tab: limits, who of the staff may look, and the log of changes. For owners alone."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from psycopg import Connection
from starlette.responses import RedirectResponse, Response

from taximeter_dashboard import amounts, pages
from taximeter_dashboard.errors import Problem
from taximeter_dashboard.house import CurrentHouse, House, admit
from taximeter_dashboard.render import base
from taximeter_dashboard.viewers import Viewer
from taximeter_db import flags_state, money, workspaces
from taximeter_db.errors import AmountError
from taximeter_db.reading import access, summary

FIELDS = {"minimum": "Minimum balance", "low": "Warn below", "reader": "May look"}

router = APIRouter(include_in_schema=False)

Amount = Annotated[str, Form(max_length=40)]


@router.get("/workspaces/{workspace_id}/settings")
def show_settings(request: Request, house: CurrentHouse, workspace_id: str, saved: str = "") -> Response:
    """The tab."""
    with house.database() as conn:
        viewer = admit(request, conn, workspace_id, write=True)
        return _show(request, house, conn, viewer, workspace_id, saved=saved == "1")


@router.post("/workspaces/{workspace_id}/settings")
def change_limits(
    request: Request, house: CurrentHouse, workspace_id: str, low: Amount = "", minimum: Amount = ""
) -> Response:
    """Change the limits, log it, and let a worker rewrite the flag."""
    with house.database() as conn:
        viewer = admit(request, conn, workspace_id, write=True)
        found = house.summary(conn, workspace_id)
        try:
            wanted_minimum, wanted_low = _limits(house, found, minimum, low)
        except Problem as problem:
            given = {"low": low, "minimum": minimum}
            return _show(request, house, conn, viewer, workspace_id, fault=problem.detail, given=given, status=422)
        workspaces.set_limits(conn, workspace_id, minimum=wanted_minimum, low=wanted_low, by=_named(viewer))
        # A worker pays this debt within a second: only it writes flags.
        flags_state.note_stale(conn, [workspace_id])
    return RedirectResponse(f"{base(request)}/workspaces/{workspace_id}/settings?saved=1", 303)


@router.get("/workspaces/{workspace_id}/settings/preview")
def preview(
    request: Request,
    house: CurrentHouse,
    workspace_id: str,
    low: Annotated[str, Query(max_length=40)] = "",
    minimum: Annotated[str, Query(max_length=40)] = "",
) -> Response:
    """What the limits would mean at this moment, in a sentence."""
    with house.database() as conn:
        admit(request, conn, workspace_id, write=True)
        found = house.summary(conn, workspace_id)
    try:
        text = effect(found, *_limits(house, found, minimum, low))
    except Problem as problem:
        text = problem.detail
    return Response(f"{amounts.unbroken(text)}", media_type="text/html")


@router.post("/workspaces/{workspace_id}/settings/readers")
def change_readers(
    request: Request,
    house: CurrentHouse,
    workspace_id: str,
    member: Annotated[str, Form(max_length=access.MEMBER_MAX)] = "",
    remove: Annotated[str, Form(max_length=access.MEMBER_MAX)] = "",
) -> Response:
    """Let a member of the staff look, or no longer."""
    with house.database() as conn:
        viewer = admit(request, conn, workspace_id, write=True)
        if remove and remove.isprintable():
            access.disallow(conn, workspace_id, remove, _named(viewer))
        elif not remove and member.strip() and member.isprintable():
            access.allow(conn, workspace_id, member.strip(), _named(viewer))
        else:
            fault = "Write the member's id as your sign-in names it."
            return _show(request, house, conn, viewer, workspace_id, fault=fault, status=422)
    return RedirectResponse(f"{base(request)}/workspaces/{workspace_id}/settings?saved=1", 303)


def _named(viewer: Viewer) -> str:
    """Who changed it, as the log says."""
    return viewer.subject if viewer.name == viewer.subject else f"{viewer.name} ({viewer.subject})"


def effect(found: summary.Summary, minimum: int, low: int) -> str:
    """What the status would be under other limits."""
    status = money.status_of(found.balance, minimum, low)
    if status == found.status:
        return "The status stays as it is."
    at = amounts.exact(minimum if "insufficient" in {status, found.status} else low)
    words = {
        "insufficient": f"With a minimum of {at} AI would be switched off now.",
        "low": f"With {at} AI would be on, with a warning, from now on.",
        "sufficient": f"With {at} the balance would be sufficient from now on.",
    }
    return words[status]


def _limits(house: House, found: summary.Summary, minimum: str, low: str) -> tuple[int, int]:
    lowest = house.settings.minimum_from
    if minimum and lowest is None and _amount(minimum) != found.minimum:
        raise Problem("The minimum balance is set by the platform.", status=422)
    wanted_minimum = _amount(minimum) if minimum and lowest is not None else found.minimum
    wanted_low = _amount(low) if low else found.low
    if lowest is not None and wanted_minimum < min(lowest, found.minimum):
        raise Problem(f"The platform allows a minimum of {amounts.exact(lowest)} at the lowest.", status=422)
    if wanted_minimum > wanted_low:
        raise Problem(
            "The minimum, where AI stops, must not lie above the threshold, where the warning begins.", status=422
        )
    return wanted_minimum, wanted_low


def _amount(text: str) -> int:
    try:
        return money.parse_usd(text.strip().replace(amounts.MINUS, "-").replace("$", ""))
    except AmountError as error:
        what = f"“{text}” is no amount. Write" if text.strip() else "Write"
        how = f"one such as 1000.00 or {amounts.MINUS}0.12: no commas, 12 decimals at most."
        raise Problem(f"{what} {how}", status=422) from error


def _field(pico: int) -> str:
    """An amount as it stands in a field: as everywhere, without what is in the way of whoever changes it."""
    return amounts.exact(pico).replace("$", "").replace(",", "")


def _show(
    request: Request,
    house: House,
    conn: Connection[Any],
    viewer: Viewer,
    workspace_id: str,
    *,
    status: int = 200,
    saved: bool = False,
    fault: str = "",
    given: dict[str, str] | None = None,
) -> Response:
    found = house.summary(conn, workspace_id)
    answer = pages.show(
        request,
        house,
        conn,
        viewer,
        workspace_id,
        "settings",
        found=found,
        saved=saved,
        fault=fault,
        given=given or {"low": _field(found.low), "minimum": _field(found.minimum)},
        lowest=house.settings.minimum_from,
        readers=access.readers(conn, workspace_id),
        changes=access.changes(conn, workspace_id),
        fields=FIELDS,
    )
    answer.status_code = status
    return answer
