"""The tab of budgets: where each stands, what was crossed, and, for owners, setting and removing them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from taximeter_dashboard.auth.claims import named
from taximeter_dashboard.context import CurrentContext, WorkspaceContext, authorize
from taximeter_dashboard.formatting import amounts
from taximeter_dashboard.pages import tracking
from taximeter_dashboard.pages.render import base
from taximeter_db import money
from taximeter_db.budgets import reading, setting
from taximeter_db.budgets import terms as budget_terms
from taximeter_db.errors import AmountError, NotFoundError, SettingsError

SHOWN_MAX = 100
CROSSINGS_SHOWN = 20
KINDS = {"warned": "reached", "exceeded": "used up", "restored": "restored"}
CAUSES = {"usage": "a usage", "period": "the end of its period", "settings": "its settings", "repricing": "a repricing"}

router = APIRouter(include_in_schema=False)

Text = Annotated[str, Form(max_length=128)]


@router.get("/workspaces/{workspace_id}/budgets")
def show_budgets(
    request: Request,
    app_context: CurrentContext,
    workspace_id: str,
    saved: str = "",
    after: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """The tab."""
    with app_context.database() as conn:
        viewer = authorize(request, conn, workspace_id)
        return _show(
            WorkspaceContext(request, app_context, conn, viewer, workspace_id), saved=saved == "1", after=after
        )


@router.post("/workspaces/{workspace_id}/budgets")
def set_budget(  # noqa: PLR0913 -- the fields of the form
    request: Request,
    app_context: CurrentContext,
    workspace_id: str,
    name: Text = "",
    limit: Text = "",
    period: Text = "month",
    hours: Text = "",
    zone: Text = "UTC",
    kind: Text = "",
    value: Text = "",
    soft: Text = "",
) -> Response:
    """Set a budget; the worker writes the flag if that changes it."""
    with app_context.database() as conn:
        viewer = authorize(request, conn, workspace_id, write=True)
        try:
            of_period = budget_terms.parse_period(f"hours:{hours.strip()}" if period == "hours" else period)
            given = budget_terms.Terms(
                workspace_id,
                name.strip(),
                money.parse_usd(limit.strip().replace("$", "")),
                *of_period,
                zone=zone.strip(),
                hard=not soft,
                **_condition(kind, value.strip()),
            )
            setting.set_budget(conn, given, by=named(viewer))
        except (AmountError, SettingsError) as error:
            filled = {"name": name, "limit": limit, "zone": zone, "value": value}
            return _show(
                WorkspaceContext(request, app_context, conn, viewer, workspace_id),
                fault=str(error),
                given=filled,
                status=422,
            )
    return RedirectResponse(f"{base(request)}/workspaces/{workspace_id}/budgets?saved=1", 303)


@router.post("/workspaces/{workspace_id}/budgets/remove")
def remove_budget(
    request: Request, app_context: CurrentContext, workspace_id: str, name: Annotated[str, Form(max_length=64)]
) -> Response:
    """Remove a budget."""
    with app_context.database() as conn:
        viewer = authorize(request, conn, workspace_id, write=True)
        try:
            setting.remove(conn, workspace_id, name, by=named(viewer))
        except NotFoundError as error:
            context = WorkspaceContext(request, app_context, conn, viewer, workspace_id)
            return _show(context, fault=str(error), status=422)
    return RedirectResponse(f"{base(request)}/workspaces/{workspace_id}/budgets?saved=1", 303)


def _condition(kind: str, value: str) -> dict[str, Any]:
    if kind == "tag":
        return {"tag": budget_terms.parse_tag(value)}
    if kind in {"user", "tool", "model"}:
        return {kind: value}
    if value:
        raise SettingsError("Say what the budget is for: a user, a tool, a model or a tag.")
    return {}


def _show(
    workspace: WorkspaceContext,
    *,
    status: int = 200,
    saved: bool = False,
    fault: str = "",
    after: str = "",
    given: dict[str, str] | None = None,
) -> Response:
    found = reading.list_budgets(workspace.conn, workspace.workspace_id, after=after, limit=SHOWN_MAX + 1)
    answer = tracking.show(
        workspace,
        "budgets",
        saved=saved,
        fault=fault,
        budgets=found[:SHOWN_MAX],
        following=found[SHOWN_MAX - 1].terms.name if len(found) > SHOWN_MAX else None,
        crossings=reading.crossings(workspace.conn, workspace.workspace_id, CROSSINGS_SHOWN),
        given=given or {"name": "", "limit": "", "zone": "UTC", "value": ""},
        crossing_kinds=KINDS,
        causes=CAUSES,
        amount=amounts.exact,
    )
    answer.status_code = status
    return answer
