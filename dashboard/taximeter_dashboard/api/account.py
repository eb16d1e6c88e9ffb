"""The JSON API of what adds up: statements, and credit that expires."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from taximeter_dashboard.api import account_documents, bodies, parameters, problems
from taximeter_dashboard.api.answers import Limit, WorkspaceId, as_json
from taximeter_dashboard.context import CurrentContext, authorize
from taximeter_dashboard.reading import accounts
from taximeter_db.ledger import grants
from taximeter_db.statements import documents as statement_documents

router = APIRouter(
    prefix="/api/v1/workspaces/{workspace_id}",
    responses=problems.PROBLEMS,
    dependencies=[Depends(parameters.refuse_unknown)],
)


@router.get("/grants", response_model=account_documents.GrantsDocument)
def list_grants(request: Request, app_context: CurrentContext, workspace_id: WorkspaceId) -> Response:
    """Credit that expires: what is left of each grant and until when, in the order in which they are used."""
    with app_context.database() as conn:
        authorize(request, conn, workspace_id)
        found = grants.standing(conn, workspace_id)
    return as_json({"items": [bodies.grant(one) for one in found]})


@router.get("/statements", response_model=account_documents.StatementsDocument)
def list_statements(
    request: Request,
    app_context: CurrentContext,
    workspace_id: WorkspaceId,
    limit: Limit = 20,
    before: Annotated[int | None, Query(ge=1, le=10**6, description="`next` of the page before.", examples=[7])] = None,
) -> Response:
    """Statements by month, newest first; the first one is the month that runs, which is not final."""
    with app_context.database() as conn:
        authorize(request, conn, workspace_id)
        found, following = accounts.listed(conn, workspace_id, before, limit)
    return as_json({"items": [bodies.in_utc(statement_documents.head(one)) for one in found], "next": following})


@router.get("/statements/{month}", response_model=account_documents.StatementDocument)
def read_statement(
    request: Request, app_context: CurrentContext, workspace_id: WorkspaceId, month: accounts.Month
) -> Response:
    """A month's account: opening + payments - usage = closing. A month that is over never changes."""
    with app_context.database() as conn:
        authorize(request, conn, workspace_id)
        found = accounts.statement(conn, workspace_id, month)
    return as_json(bodies.in_utc(statement_documents.body(found)))
