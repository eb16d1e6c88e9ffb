"""The settings tab: limits, who of the staff may look, programs' tokens, and the log of changes. For owners alone."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from taximeter_dashboard.auth.claims import named
from taximeter_dashboard.context import AppContext, CurrentContext, WorkspaceContext, authorize
from taximeter_dashboard.errors import ProblemError
from taximeter_dashboard.formatting import amounts
from taximeter_dashboard.pages import tracking
from taximeter_dashboard.pages.render import base
from taximeter_db import access, money, service_tokens, workspaces
from taximeter_db.errors import AmountError, SettingsError
from taximeter_db.queries import summary

FIELDS = {
    "minimum": "Minimum balance",
    "low": "Warn below",
    "reader": "May look",
    "token": "Token",
    "notices": "Notices",
    "zone": "Time zone of statements",
}

router = APIRouter(include_in_schema=False)

Amount = Annotated[str, Form(max_length=40)]


@router.get("/workspaces/{workspace_id}/settings")
def show_settings(request: Request, app_context: CurrentContext, workspace_id: str, saved: str = "") -> Response:
    """The tab."""
    with app_context.database() as conn:
        viewer = authorize(request, conn, workspace_id, write=True)
        return _show(WorkspaceContext(request, app_context, conn, viewer, workspace_id), saved=saved == "1")


@router.post("/workspaces/{workspace_id}/settings")
def change_limits(
    request: Request, app_context: CurrentContext, workspace_id: str, low: Amount = "", minimum: Amount = ""
) -> Response:
    """Change the limits, log it, and let a worker rewrite the flag."""
    with app_context.database() as conn:
        viewer = authorize(request, conn, workspace_id, write=True)
        found = app_context.summary(conn, workspace_id)
        try:
            wanted_minimum, wanted_low = _limits(app_context, found, minimum, low)
        except ProblemError as problem:
            given = {"low": low, "minimum": minimum}
            return _show(
                WorkspaceContext(request, app_context, conn, viewer, workspace_id),
                fault=problem.detail,
                given=given,
                status=422,
            )
        workspaces.set_limits(conn, workspace_id, minimum=wanted_minimum, low=wanted_low, by=named(viewer))
    return RedirectResponse(f"{base(request)}/workspaces/{workspace_id}/settings?saved=1", 303)


@router.get("/workspaces/{workspace_id}/settings/preview")
def preview(
    request: Request,
    app_context: CurrentContext,
    workspace_id: str,
    low: Annotated[str, Query(max_length=40)] = "",
    minimum: Annotated[str, Query(max_length=40)] = "",
) -> Response:
    """What the limits would mean at this moment, in a sentence."""
    with app_context.database() as conn:
        authorize(request, conn, workspace_id, write=True)
        found = app_context.summary(conn, workspace_id)
    try:
        text = effect(found, *_limits(app_context, found, minimum, low))
    except ProblemError as problem:
        text = problem.detail
    return Response(f"{amounts.unbroken(text)}", media_type="text/html")


@router.post("/workspaces/{workspace_id}/settings/readers")
def change_readers(
    request: Request,
    app_context: CurrentContext,
    workspace_id: str,
    member: Annotated[str, Form(max_length=access.MEMBER_MAX)] = "",
    remove: Annotated[str, Form(max_length=access.MEMBER_MAX)] = "",
) -> Response:
    """Let a member of the staff look, or no longer."""
    with app_context.database() as conn:
        viewer = authorize(request, conn, workspace_id, write=True)
        if remove and remove.isprintable():
            access.disallow(conn, workspace_id, remove, named(viewer))
        elif not remove and member.strip() and member.isprintable():
            access.allow(conn, workspace_id, member.strip(), named(viewer))
        else:
            fault = "Write the member's id as your sign-in names it."
            return _show(WorkspaceContext(request, app_context, conn, viewer, workspace_id), fault=fault, status=422)
    return RedirectResponse(f"{base(request)}/workspaces/{workspace_id}/settings?saved=1", 303)


@router.post("/workspaces/{workspace_id}/settings/tokens")
def change_tokens(
    request: Request,
    app_context: CurrentContext,
    workspace_id: str,
    name: Annotated[str, Form(max_length=64)] = "",
    read: Annotated[str, Form(max_length=8)] = "",
    revoke: Annotated[str, Form(max_length=64)] = "",
) -> Response:
    """Make a token for a program and show it this once, or revoke one."""
    with app_context.database() as conn:
        viewer = authorize(request, conn, workspace_id, write=True)
        if not revoke:
            try:
                made = service_tokens.make(
                    conn, name.strip(), workspaces=[workspace_id], read_only=bool(read), by=named(viewer)
                )
            except SettingsError as error:
                return _show(
                    WorkspaceContext(request, app_context, conn, viewer, workspace_id), fault=str(error), status=422
                )
            return _show(WorkspaceContext(request, app_context, conn, viewer, workspace_id), token=made)
        service_tokens.take_away(conn, workspace_id, revoke, by=named(viewer))
    return RedirectResponse(f"{base(request)}/workspaces/{workspace_id}/settings?saved=1", 303)


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


def _limits(app_context: AppContext, found: summary.Summary, minimum: str, low: str) -> tuple[int, int]:
    lowest = app_context.settings.minimum_from
    if minimum and lowest is None and _amount(minimum) != found.minimum:
        raise ProblemError("The minimum balance is set by the platform.", status=422)
    wanted_minimum = _amount(minimum) if minimum and lowest is not None else found.minimum
    wanted_low = _amount(low) if low else found.low
    if lowest is not None and wanted_minimum < min(lowest, found.minimum):
        raise ProblemError(f"The platform allows a minimum of {amounts.exact(lowest)} at the lowest.", status=422)
    if wanted_minimum > wanted_low:
        raise ProblemError(
            "The minimum, where AI stops, must not lie above the threshold, where the warning begins.", status=422
        )
    return wanted_minimum, wanted_low


def _amount(text: str) -> int:
    try:
        return money.parse_usd(text.strip().replace(amounts.MINUS, "-").replace("$", ""))
    except AmountError as error:
        what = f"“{text}” is not an amount. Write" if text.strip() else "Write"
        how = f"one such as 1000.00 or {amounts.MINUS}0.12: no commas, 12 decimals at most."
        raise ProblemError(f"{what} {how}", status=422) from error


def _field(pico: int) -> str:
    """An amount as it stands in a field: as everywhere, without what is in the way of whoever changes it."""
    return amounts.exact(pico).replace("$", "").replace(",", "")


def _show(
    workspace: WorkspaceContext,
    *,
    status: int = 200,
    saved: bool = False,
    fault: str = "",
    token: str = "",
    given: dict[str, str] | None = None,
) -> Response:
    found = workspace.summary()
    answer = tracking.show(
        workspace,
        "settings",
        found=found,
        saved=saved,
        fault=fault,
        token=token,
        tokens=service_tokens.of_workspace(workspace.conn, workspace.workspace_id),
        given=given or {"low": _field(found.low), "minimum": _field(found.minimum)},
        lowest=workspace.app_context.settings.minimum_from,
        readers=access.readers(workspace.conn, workspace.workspace_id),
        changes=access.changes(workspace.conn, workspace.workspace_id),
        fields=FIELDS,
    )
    answer.status_code = status
    return answer
