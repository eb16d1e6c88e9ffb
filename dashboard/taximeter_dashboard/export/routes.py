"""The export: usages as filtered, or payments, streamed at constant memory.

Every export is written down with its progress, so that the page can show it, and cancel it, whichever process serves it.
A stream that breaks ends with its connection and without the last chunk: browsers and curl report it as failed.
"""

from __future__ import annotations

import codecs
import logging
import secrets
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request
from psycopg import Connection
from starlette.responses import Response, StreamingResponse

from taximeter_dashboard.api import parameters, problems
from taximeter_dashboard.context import AppContext, CurrentContext, authorize
from taximeter_dashboard.errors import ExportEndedError, NotFoundError, ProblemError
from taximeter_dashboard.export import formats
from taximeter_dashboard.formatting import times
from taximeter_dashboard.formatting.times import zone_of
from taximeter_dashboard.reading import filters
from taximeter_db import exports
from taximeter_db.ledger import rollups
from taximeter_db.queries import copying, filtered, usages

_ROLL_UP_RUNS_MAX: Final = 1_000
_SHEETS: Final = {"usages": copying.USAGES, "payments": copying.PAYMENTS}
_WRITERS: Final = {formats.CSV: formats.as_csv, formats.PARQUET: formats.as_parquet}

router = APIRouter()
log = logging.getLogger("taximeter_dashboard")

Kind = Literal["csv", "parquet"]
LogName = Annotated[Literal["usages", "payments"], Query(description="Which log; only usages are filtered.")]
Ticket = Annotated[
    str,
    Query(pattern="^[A-Za-z0-9-]{0,64}$", description="A name of your choice by which to ask how far it is."),
]
WorkspaceId = Annotated[str, Path(max_length=128, examples=["acme"])]


ByteOrderMark = Annotated[
    Literal["1"] | None,
    Query(description="1: begin the CSV with a byte-order mark, by which spreadsheets know UTF-8."),
]


class Wish(msgspec.Struct, frozen=True):
    """An export as it was asked for. `query` is the filter as the address has it; `bom` puts a byte-order mark first."""

    log: Literal["usages", "payments"]
    kind: str
    query: str
    wanted: filtered.Filter
    newest: bool
    bom: bool
    ticket: str = ""


class Job(msgspec.Struct, frozen=True):
    """What an export is to write: numbers `first` to `last` of a log, as far as they match."""

    workspace_id: str
    wish: Wish
    ticket: str
    first: int
    last: int


@router.get("/workspaces/{workspace_id}/export.{kind}", include_in_schema=False)
def export_page(  # noqa: PLR0913 -- the parameters of the address
    request: Request,
    app_context: CurrentContext,
    workspace_id: str,
    kind: Kind,
    asked: Annotated[filters.Asked, Depends(filters.ask)],
    log: LogName = "usages",
    sort: Literal["newest", "oldest"] = "newest",
    ticket: Ticket = "",
    bom: ByteOrderMark = None,
) -> Response:
    """What the list shows, all of it, up to what was booked when the export began."""
    wanted = asked.wanted(zone_of(request))
    wish = Wish(log, kind, asked.query, wanted, sort == "newest", bom is not None, ticket)
    return _export(request, app_context, workspace_id, wish)


@router.get(
    "/api/v1/workspaces/{workspace_id}/export",
    response_class=StreamingResponse,
    dependencies=[Depends(parameters.refuse_unknown)],
    responses={
        **problems.PROBLEMS,
        200: {
            "description": "The rows as a file. One that breaks off ends without its last chunk: an error of transport.",
            "content": {
                formats.MEDIA_TYPES["csv"]: {
                    "schema": {"type": "string"},
                    "example": "seq,event_id,recorded_at,…\n1204,0199c7f2-6d0e-7a55-8f3c-2f4f8f0c9a11,2026-11-22T10:00:00.123000Z,…\n",
                },
                formats.MEDIA_TYPES["parquet"]: {
                    "schema": {"type": "string", "format": "binary"},
                    "example": "PAR1…",
                },
            },
        },
    },
)
def export_api(  # noqa: PLR0913 -- the parameters of the address
    request: Request,
    app_context: CurrentContext,
    workspace_id: WorkspaceId,
    asked: Annotated[filters.Asked, Depends(filters.ask_api)],
    format: Annotated[Kind, Query()] = "csv",  # noqa: A002 - the name in the address
    log: LogName = "usages",
    sort: Literal["newest", "oldest"] = "newest",
    zone: Annotated[
        str, Query(max_length=64, examples=["Europe/Riga"], json_schema_extra={"format": "time-zone"})
    ] = "UTC",
    bom: ByteOrderMark = None,
) -> Response:
    """All usages that match, or all payments, as a file of any size. Text cells of CSV never begin a formula."""
    wanted = asked.wanted(times.zone_named(zone))
    wish = Wish(log, format, asked.query, wanted, sort == "newest", bom is not None)
    return _export(request, app_context, workspace_id, wish)


@router.get("/workspaces/{workspace_id}/exports/{ticket}", include_in_schema=False)
def read_progress(request: Request, app_context: CurrentContext, workspace_id: str, ticket: str) -> Response:
    """How far an export is; one that has not begun yet (or never will) is ``waiting``."""
    with app_context.database() as conn:
        authorize(request, conn, workspace_id, logged=False)
        found = exports.read(conn, workspace_id, ticket) or exports.Export("waiting", 0, None)
    return Response(msgspec.json.encode(found), media_type="application/json")


@router.post("/workspaces/{workspace_id}/exports/{ticket}/cancel", include_in_schema=False)
def cancel(request: Request, app_context: CurrentContext, workspace_id: str, ticket: str) -> Response:
    """Cancel an export; its download fails."""
    with app_context.database() as conn:
        authorize(request, conn, workspace_id, logged=False)
        if not exports.end(conn, workspace_id, ticket, "cancelled"):
            raise NotFoundError
    return Response(status_code=204)


def _export(request: Request, app_context: AppContext, workspace_id: str, wish: Wish) -> Response:
    if wish.kind not in formats.formats():
        raise ProblemError(
            "Parquet is not installed here: pip install 'taximeter[parquet]'.", status=501, title="Not installed"
        )
    if wish.log == "payments":
        wish = msgspec.structs.replace(wish, wanted=filtered.Filter(), query="")
    with app_context.database() as conn:
        viewer = authorize(request, conn, workspace_id)
        found = app_context.summary(conn, workspace_id)
        last = found.usage_count if wish.log == "usages" else found.payment_count
    if not wish.wanted.empty:
        _catch_up(app_context, workspace_id, last)
    with app_context.database(workspace_id) as conn:
        job, total = _plan(conn, workspace_id, wish, last)
        asked = exports.Request(log=wish.log, format=wish.kind, query=wish.query, by=viewer.subject, total=total)
        if not exports.begin(conn, workspace_id, job.ticket, asked):
            raise ProblemError("This ticket was used before. Choose another.", status=409, title="Used before")
    file = f"{wish.log}-{workspace_id.replace(':', '_')}.{wish.kind}"
    headers = {"content-disposition": f'attachment; filename="{file}"', "x-accel-buffering": "no"}
    if wish.kind == formats.PARQUET:
        headers["content-encoding"] = "identity"  # it is compressed already
    return StreamingResponse(_stream(app_context, job), media_type=formats.MEDIA_TYPES[wish.kind], headers=headers)


def _plan(conn: Connection[Any], workspace_id: str, wish: Wish, last: int) -> tuple[Job, int | None]:
    """Which numbers to read, of the `last` that there are, and how many rows that gives, where it is known."""
    first, total = 1, last
    wanted, more = wish.wanted, False
    if not wanted.empty:
        filters.require_named(conn, workspace_id, wanted)
        totals = filtered.totals(conn, workspace_id, wanted)
        total, more = totals.usages, totals.more
    if wanted.since is not None:
        first = usages.seq_at(conn, workspace_id, wanted.since)
    if wanted.until is not None:
        last = min(last, usages.seq_at(conn, workspace_id, wanted.until) - 1)
    job = Job(workspace_id, wish, wish.ticket or secrets.token_urlsafe(16), first, last)
    return job, None if more else total


def _catch_up(app_context: AppContext, workspace_id: str, count: int) -> None:
    for _ in range(_ROLL_UP_RUNS_MAX):
        with app_context.database(workspace_id) as conn:
            reached, _ = rollups.follow(conn, workspace_id, rollups.RUN_MAX)
        if reached >= count:
            return


def _stream(app_context: AppContext, job: Job) -> Iterator[bytes]:
    """The file, part by part, each written down once it is on its way."""
    write: Callable[..., Any] = _WRITERS[job.wish.kind]
    state, done = "failed", 0
    try:
        if job.wish.bom and job.wish.kind == formats.CSV:
            yield codecs.BOM_UTF8
        for data, rows in write(_SHEETS[job.wish.log], _windows(app_context, job)):
            done += rows
            if data:
                yield data
            with app_context.database(job.workspace_id) as conn:
                if rows and not exports.move(conn, job.workspace_id, job.ticket, done):
                    # Raised, so that the connection breaks: a file that ended here would look whole.
                    raise ExportEndedError
        state = "done"
    except GeneratorExit:  # whoever was downloading went away
        state = "cancelled"
        raise
    finally:
        try:
            with app_context.database(job.workspace_id) as conn:
                exports.end(conn, job.workspace_id, job.ticket, state)
        except ProblemError:
            log.warning("the end of an export could not be written down")


def _windows(app_context: AppContext, job: Job) -> Iterator[tuple[bytes, int]]:
    """Window by window, each on a connection borrowed for it alone: a slow reader holds none."""
    layout = copying.Layout(_SHEETS[job.wish.log], newest=job.wish.newest, raw=job.wish.kind != "csv")
    low, high = job.first, job.last
    while low <= high:
        first = max(low, high - copying.WINDOW_ROWS + 1) if job.wish.newest else low
        last = high if job.wish.newest else min(high, low + copying.WINDOW_ROWS - 1)
        with app_context.database(job.workspace_id) as conn:
            data, rows = copying.window(conn, layout, job.workspace_id, job.wish.wanted, first, last)
            if job.wish.newest:
                high = first - 1
            else:
                low = last + 1
            if not rows and low <= high:  # few match: on to the next one
                low, high = _next(conn, job, low, high)
        yield data, rows


def _next(conn: Any, job: Job, low: int, high: int) -> tuple[int, int]:
    """What is left from the next match on."""
    window = filtered.Window(low - 1, high + 1, newest=job.wish.newest, limit=1)
    page = filtered.search(conn, job.workspace_id, job.wish.wanted, window)
    place = page.rows[0].seq if page.rows else page.place
    if place is None:
        return high + 1, high
    return (low, place) if job.wish.newest else (place, high)
