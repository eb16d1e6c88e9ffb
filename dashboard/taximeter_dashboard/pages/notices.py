"""The notices tab: where a workspace's notices go, and what was sent. For owners alone."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from taximeter_dashboard.auth.claims import named
from taximeter_dashboard.context import CurrentContext, WorkspaceContext, authorize
from taximeter_dashboard.pages import tracking
from taximeter_dashboard.pages.render import base
from taximeter_db.errors import MasterKeyError, NotFoundError, SettingsError
from taximeter_db.notices import addresses, deliveries, outbox, targets
from taximeter_db.notices.deliveries import Sent
from taximeter_db.notices.targets import NewTarget, Target

SENT_A_PAGE: Final = 50
TYPES: Final = {key: kind.name for key, kind in outbox.TYPES.items() if kind.is_sent}
"""Those that an owner may choose among; a target without a choice gets all."""
NAMES: Final = {**{key: kind.name for key, kind in outbox.TYPES.items()}, deliveries.TEST: "Test"}
STATES: Final = {
    "pending": "On its way",
    "delivered": "Delivered",
    "superseded": "Left out: a newer one said more",
    "dead": "Given up",
}

router = APIRouter(include_in_schema=False)


@router.get("/workspaces/{workspace_id}/notices")
def show_notices(
    request: Request,
    app_context: CurrentContext,
    workspace_id: str,
    before: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
    done: Literal["", "saved", "test", "replay"] = "",
) -> Response:
    """The tab."""
    with app_context.database() as conn:
        viewer = authorize(request, conn, workspace_id, write=True)
        return _show(WorkspaceContext(request, app_context, conn, viewer, workspace_id), before=before, done=done)


@router.post("/workspaces/{workspace_id}/notices/targets")
def add_target(
    request: Request,
    app_context: CurrentContext,
    workspace_id: str,
    address: Annotated[str, Form(max_length=addresses.ADDRESS_MAX)] = "",
    kinds: Annotated[list[str] | None, Form(alias="type", max_length=20)] = None,
    quiet: Annotated[str, Form(max_length=10)] = "0",
) -> Response:
    """Add a target; a webhook's secret is shown this once."""
    address = address.strip()
    web = address.lower().startswith(("https://", "http://"))
    new = NewTarget(
        channel=targets.WEBHOOK if web else targets.APPRISE,
        address=address,
        workspace_id=workspace_id,
        types=tuple(kinds or ()),
        quiet_seconds=int(quiet) if quiet.isascii() and quiet.isdigit() else -1,
    )
    with app_context.database() as conn:
        viewer = authorize(request, conn, workspace_id, write=True)
        workspace = WorkspaceContext(request, app_context, conn, viewer, workspace_id)
        try:
            added = targets.add(conn, new, app_context.masters, named(viewer))
        except SettingsError as error:
            return _show(workspace, fault=str(error), status=422)
        if added.secret is not None:
            return _show(workspace, secret=added.secret, done="saved")
    return _back(request, workspace_id, "saved")


@router.post("/workspaces/{workspace_id}/notices/targets/change")
def change_target(
    request: Request,
    app_context: CurrentContext,
    workspace_id: str,
    number: Annotated[str, Form(alias="target", max_length=18)] = "",
    act: Annotated[str, Form(max_length=8)] = "",
) -> Response:
    """Remove a target, try it out, send again what was given up, or give it a new secret."""
    with app_context.database() as conn:
        viewer = authorize(request, conn, workspace_id, write=True)
        workspace = WorkspaceContext(request, app_context, conn, viewer, workspace_id)
        target = _target(workspace, number)
        if target is None:
            return _show(workspace, fault="There is no such target any more.", status=422)
        if act == "rotate":
            try:
                secret = targets.rotate(conn, target, app_context.masters, named(viewer))
            except (SettingsError, MasterKeyError) as error:
                return _show(workspace, fault=str(error), status=422)
            return _show(workspace, secret=secret, done="saved")
        if act == "remove":
            targets.remove(conn, target, named(viewer))
        elif act == "test":
            deliveries.send_test(conn, target, named(viewer))
        elif act == "replay":
            deliveries.replay(conn, target, workspace_id)
        else:
            return _show(workspace, fault="Choose what to do with it.", status=422)
    return _back(request, workspace_id, "saved" if act == "remove" else act)


def _target(workspace: WorkspaceContext, number: str) -> Target | None:
    """One of the workspace's own targets, by its number as a form sends it; None: it has none of that number."""
    if not (number.isascii() and number.isdigit()):
        return None
    try:
        return targets.get(workspace.conn, int(number), workspace.workspace_id)
    except NotFoundError:
        return None


def _back(request: Request, workspace_id: str, done: str) -> Response:
    return RedirectResponse(f"{base(request)}/workspaces/{workspace_id}/notices?done={done}", 303)


def _show(
    workspace: WorkspaceContext,
    *,
    status: int = 200,
    before: int | None = None,
    done: str = "",
    fault: str = "",
    secret: str = "",
) -> Response:
    conn, workspace_id = workspace.conn, workspace.workspace_id
    sent = deliveries.sent(conn, workspace_id, before=before, limit=SENT_A_PAGE + 1)
    page = _page(sent)
    listed = targets.listed(conn, workspace_id)
    answer = tracking.show(
        workspace,
        "notices",
        done=done,
        fault=fault,
        secret=secret,
        targets=listed,
        own=_named(listed),
        sent=page,
        older=None if len(page) == len(sent) else page[-1].notice_id,
        types=TYPES,
        names=NAMES,
        states=STATES,
        quiet_max=targets.QUIET_SECONDS_MAX,
        address_max=addresses.ADDRESS_MAX,
    )
    answer.status_code = status
    return answer


def _named(listed: list[Target]) -> dict[int, str]:
    """What each target is called in the list of what was sent; the platform's own are not among them."""
    return {target.target_id: target.shown for target in listed}


def _page(sent: list[Sent]) -> list[Sent]:
    """A page of what was sent. The deliveries of one notice, far fewer than a page, stay together."""
    if len(sent) <= SENT_A_PAGE:
        return sent
    return [entry for entry in sent if entry.notice_id > sent[SENT_A_PAGE].notice_id]
