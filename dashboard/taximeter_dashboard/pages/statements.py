"""The tab of statements: the months, one of them, its CSV and PDF, the time zone, and the receipts of payments."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from taximeter_dashboard.auth.claims import named
from taximeter_dashboard.context import CurrentContext, WorkspaceContext, authorize
from taximeter_dashboard.errors import NotFoundError
from taximeter_dashboard.formatting import times
from taximeter_dashboard.pages import tracking
from taximeter_dashboard.pages.panels import decimals_max
from taximeter_dashboard.pages.render import base
from taximeter_dashboard.reading import accounts
from taximeter_db.errors import SettingsError
from taximeter_db.queries import payments
from taximeter_db.statements import documents, pdf, reading, terms
from taximeter_db.statements.terms import MONTHS, Period

SHOWN_MAX = 24
PAYMENTS_SHOWN = 100

router = APIRouter(include_in_schema=False)


def month_words(period: Period) -> str:
    """``November 2026``."""
    return f"{MONTHS[period.month.month - 1]} {period.month.year}"


@router.get("/workspaces/{workspace_id}/statements")
def show_statements(
    request: Request,
    app_context: CurrentContext,
    workspace_id: str,
    saved: str = "",
    before: Annotated[int | None, Query(ge=1, le=10**6)] = None,
) -> Response:
    """The months that there are."""
    with app_context.database() as conn:
        viewer = authorize(request, conn, workspace_id)
        return _list(
            WorkspaceContext(request, app_context, conn, viewer, workspace_id), before=before, saved=saved == "1"
        )


@router.post("/workspaces/{workspace_id}/statements/zone")
def set_zone(
    request: Request, app_context: CurrentContext, workspace_id: str, zone: Annotated[str, Form(max_length=64)] = ""
) -> Response:
    """Let the months begin in another time zone, from the present one on."""
    with app_context.database() as conn:
        viewer = authorize(request, conn, workspace_id, write=True)
        workspace = WorkspaceContext(request, app_context, conn, viewer, workspace_id)
        try:
            with accounts.told():
                reading.set_zone(conn, workspace_id, zone.strip(), by=named(viewer))
        except SettingsError as error:
            return _list(workspace, fault=str(error), given=zone, status=422)
    return RedirectResponse(f"{base(request)}/workspaces/{workspace_id}/statements?saved=1", 303)


@router.get("/workspaces/{workspace_id}/statements/{month}")
def show_statement(request: Request, app_context: CurrentContext, workspace_id: str, month: accounts.Month) -> Response:
    """One month."""
    with app_context.database() as conn:
        viewer = authorize(request, conn, workspace_id)
        found = accounts.statement(conn, workspace_id, month)
        last = min(found.payment_last, found.payment_first + PAYMENTS_SHOWN - 1)
        amounts = [found.opening, found.payments, found.usage, found.closing]
        lines = found.lines
        context: dict[str, Any] = {
            "statement": found,
            "month": month_words(found.period),
            "paid": payments.between(conn, workspace_id, found.payment_first, last),
            "splits": [("tool", lines.tools), ("model", lines.models), ("user", lines.users)],
            "line_words": documents.words,
            "decimals": decimals_max(amounts),
            "has_pdf": pdf.installed(),
            "in_zone": lambda moment: times.full(moment, times.zone(found.period.zone)),
        }
        return tracking.show(WorkspaceContext(request, app_context, conn, viewer, workspace_id), "statement", **context)


@router.get("/workspaces/{workspace_id}/statements/{month}/file.{kind}")
def download_statement(
    request: Request,
    app_context: CurrentContext,
    workspace_id: str,
    month: accounts.Month,
    kind: Literal["csv", "pdf"],
) -> Response:
    """A month as a file."""
    with app_context.database() as conn:
        authorize(request, conn, workspace_id)
        found = accounts.statement(conn, workspace_id, month)
        paid = reading.one_by_one(conn, found)
    with accounts.told():  # a long PDF takes seconds, which no connection waits for
        data = documents.as_csv(found) if kind == "csv" else pdf.statement(found, paid)
    return _file(data, f"statement-{workspace_id}-{month}", kind)


@router.get("/workspaces/{workspace_id}/payments/{seq}/receipt.pdf")
def download_receipt(request: Request, app_context: CurrentContext, workspace_id: str, seq: tracking.Seq) -> Response:
    """The receipt of a payment."""
    with app_context.database() as conn:
        authorize(request, conn, workspace_id)
        row = payments.get(conn, workspace_id, seq)
        if row is None:
            raise NotFoundError
        with accounts.told():
            data = pdf.receipt(workspace_id, row, reading.zone(conn, workspace_id))
    return _file(data, f"receipt-{workspace_id}-{seq}", "pdf")


def _file(data: bytes, name: str, kind: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name.replace(":", "_")}.{kind}"'}
    return Response(data, media_type="application/pdf" if kind == "pdf" else "text/csv; charset=utf-8", headers=headers)


def _list(
    workspace: WorkspaceContext,
    *,
    before: int | None = None,
    saved: bool = False,
    fault: str = "",
    given: str | None = None,
    status: int = 200,
) -> Response:
    months, following = accounts.listed(workspace.conn, workspace.workspace_id, before, SHOWN_MAX)
    zone = reading.zone(workspace.conn, workspace.workspace_id)
    answer = tracking.show(
        workspace,
        "statements",
        months=months,
        following=following,
        month_words=month_words,
        columns={
            name: decimals_max([getattr(one, name) for one in months])
            for name in ("opening", "payments", "usage", "closing")
        },
        saved=saved,
        fault=fault,
        zone=zone,
        given=zone if given is None else given,
        utc=terms.UTC,
    )
    answer.status_code = status
    return answer
