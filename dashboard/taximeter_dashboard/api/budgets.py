"""The JSON API's budgets: listing, setting and removing them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import Response

from taximeter_dashboard.api import bodies, budget_documents, parameters, problems
from taximeter_dashboard.api.answers import Limit, WorkspaceId, as_json
from taximeter_dashboard.auth.claims import named
from taximeter_dashboard.context import CurrentContext, authorize
from taximeter_dashboard.errors import NotFoundError, ProblemError
from taximeter_dashboard.reading import filters
from taximeter_db import money
from taximeter_db.budgets import reading, setting
from taximeter_db.budgets import terms as budget_terms
from taximeter_db.errors import AmountError, SettingsError
from taximeter_db.errors import NotFoundError as NoSuchBudgetError

Name = Annotated[
    str,
    Path(
        min_length=1,
        max_length=budget_terms.NAME_MAX,
        description="Printable, without a blank at an end.",
        examples=["search-team"],
        json_schema_extra={"format": "budget-text"},
    ),
]

router = APIRouter(
    prefix="/api/v1/workspaces/{workspace_id}",
    responses=problems.PROBLEMS,
    dependencies=[Depends(parameters.refuse_unknown)],
)


@router.get("/budgets", response_model=budget_documents.BudgetsDocument)
def list_budgets(
    request: Request,
    app_context: CurrentContext,
    workspace_id: WorkspaceId,
    limit: Limit = 20,
    after: Annotated[
        str, Query(max_length=64, pattern=filters.NO_NUL, description="The last name that you have.")
    ] = "",
) -> Response:
    """Budgets by name, and what was spent of each in its present period."""
    with app_context.database() as conn:
        authorize(request, conn, workspace_id)
        found = reading.list_budgets(conn, workspace_id, after=after, limit=limit + 1)
    items = [bodies.budget(budget) for budget in found[:limit]]
    return as_json({"items": items, "next": items[-1]["name"] if len(found) > limit else None})


def may_write(request: Request, app_context: CurrentContext, workspace_id: WorkspaceId) -> None:
    """Who may not write is told so, and not what is wrong with the body. Raises ProblemError."""
    with app_context.database() as conn:
        authorize(request, conn, workspace_id, write=True)


@router.put("/budgets/{name:path}", response_model=budget_documents.BudgetDocument, dependencies=[Depends(may_write)])
def set_budget(
    request: Request,
    app_context: CurrentContext,
    workspace_id: WorkspaceId,
    name: Name,
    given: budget_documents.BudgetTermsDocument,
) -> Response:
    """Set a budget, or change the one of this name. What was spent in its present period is counted from the log.

    For the workspace's owner, and for service tokens that may write.
    """
    with app_context.database() as conn:
        viewer = authorize(request, conn, workspace_id, write=True)
        try:
            terms = budget_terms.Terms(
                workspace_id,
                name,
                money.parse_usd(given.limit),
                *budget_terms.parse_period(given.period),
                zone=given.zone,
                user=given.user,
                tool=given.tool,
                model=given.model,
                tag=None if given.tag is None else budget_terms.parse_tag(given.tag),
                hard=not given.soft,
                thresholds=tuple(given.thresholds),
            )
            setting.set_budget(conn, terms, by=named(viewer))
        except (AmountError, SettingsError) as error:
            raise ProblemError(str(error), status=422, title="Not valid") from error
        found = reading.find(conn, workspace_id, name)
    if found is None:  # pragma: no cover - it was set in this transaction
        raise NotFoundError
    return as_json(bodies.budget(found))


@router.delete("/budgets/{name:path}", status_code=204)
def remove_budget(request: Request, app_context: CurrentContext, workspace_id: WorkspaceId, name: Name) -> Response:
    """Remove a budget: what it had used up is open again. For the workspace's owner, and for service tokens that may write."""
    with app_context.database() as conn:
        viewer = authorize(request, conn, workspace_id, write=True)
        try:
            setting.remove(conn, workspace_id, name, by=named(viewer))
        except NoSuchBudgetError as error:
            raise NotFoundError from error
    return Response(status_code=204)
