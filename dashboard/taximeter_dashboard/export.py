"""The export: usages as filtered, or payments, streamed at constant memory.

Every export is written down with its progress, so that the page can show it, and call it off, whichever process serves it.
A stream that breaks ends with its connection and without the last chunk: browsers and curl report it as failed.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import Response, StreamingResponse

from taximeter_dashboard import api_parameters, api_problems, export_formats, filters, times
from taximeter_dashboard.errors import ExportEnded, NotFound, Problem
from taximeter_dashboard.house import CurrentHouse, House, admit
from taximeter_dashboard.render import zone_of
from taximeter_db import rollups
from taximeter_db.reading import copying, exports, filtered, usages

_ROLL_UP_RUNS_MAX: Final = 1_000
_SHEETS: Final = {"usages": copying.USAGES, "payments": copying.PAYMENTS}
_WRITERS: Final = {export_formats.CSV: export_formats.as_csv, export_formats.PARQUET: export_formats.as_parquet}

router = APIRouter()
log = logging.getLogger("taximeter_dashboard")

Kind = Literal["csv", "parquet"]
LogName = Annotated[Literal["usages", "payments"], Query(description="Which log; only usages are filtered.")]
Ticket = Annotated[
    str,
    Query(pattern="^[A-Za-z0-9-]{0,64}$", description="A name of your choice by which to ask how far it is."),
]
WorkspaceId = Annotated[str, Path(max_length=128, examples=["acme"])]


class Job(msgspec.Struct, frozen=True):
    """What an export is to write: numbers `first` to `last` of a log, as far as they match."""

    workspace_id: str
    ticket: str
    log: str
    kind: str
    wanted: filtered.Filter
    first: int
    last: int
    newest: bool


@router.get("/workspaces/{workspace_id}/export.{kind}", include_in_schema=False)
def export_page(
    request: Request,
    house: CurrentHouse,
    workspace_id: str,
    kind: Kind,
    asked: Annotated[filters.Asked, Depends(filters.ask)],
    log: LogName = "usages",
    sort: Literal["newest", "oldest"] = "newest",
    ticket: Ticket = "",
) -> Response:
    """What the list shows, all of it, up to what was booked when the export began."""
    wanted = asked.wanted(zone_of(request))
    return _export(request, house, workspace_id, kind, asked.query, wanted, log, sort, ticket)


@router.get(
    "/api/v1/workspaces/{workspace_id}/export",
    response_class=StreamingResponse,
    dependencies=[Depends(api_parameters.refuse_unknown)],
    responses={
        **api_problems.PROBLEMS,
        200: {
            "description": "The rows as a file. One that breaks off ends without its last chunk: an error of transport.",
            "content": {
                export_formats.MEDIA_TYPES["csv"]: {
                    "schema": {"type": "string"},
                    "example": "seq,event_id,recorded_at,…\n1204,0199c7f2-6d0e-7a55-8f3c-2f4f8f0c9a11,2026-11-22T10:00:00.123000Z,…\n",
                },
                export_formats.MEDIA_TYPES["parquet"]: {
                    "schema": {"type": "string", "format": "binary"},
                    "example": "PAR1…",
                },
            },
        },
    },
)
def export_api(
    request: Request,
    house: CurrentHouse,
    workspace_id: WorkspaceId,
    asked: Annotated[filters.Asked, Depends(filters.ask_api)],
    format: Annotated[Kind, Query()] = "csv",  # noqa: A002 - the name in the address
    log: LogName = "usages",
    sort: Literal["newest", "oldest"] = "newest",
    zone: Annotated[
        str, Query(max_length=64, examples=["Europe/Riga"], json_schema_extra={"format": "time-zone"})
    ] = "UTC",
) -> Response:
    """All usages that match, or all payments, as a file of any size. Text cells of CSV never begin a formula."""
    wanted = asked.wanted(times.zone_named(zone))
    return _export(request, house, workspace_id, format, asked.query, wanted, log, sort, "")


@router.get("/workspaces/{workspace_id}/exports/{ticket}", include_in_schema=False)
def read_progress(request: Request, house: CurrentHouse, workspace_id: str, ticket: str) -> Response:
    """How far an export is; one that has not begun yet (or never will) is ``waiting``."""
    with house.database() as conn:
        admit(request, conn, workspace_id, logged=False)
        found = exports.read(conn, workspace_id, ticket) or exports.Export("waiting", 0, None)
    return Response(msgspec.json.encode(found), media_type="application/json")


@router.post("/workspaces/{workspace_id}/exports/{ticket}/cancel", include_in_schema=False)
def cancel(request: Request, house: CurrentHouse, workspace_id: str, ticket: str) -> Response:
    """Call an export off; its download fails."""
    with house.database() as conn:
        admit(request, conn, workspace_id, logged=False)
        if not exports.end(conn, workspace_id, ticket, "cancelled"):
            raise NotFound
    return Response(status_code=204)


def _export(
    request: Request,
    house: House,
    workspace_id: str,
    kind: str,
    query: str,
    wanted: filtered.Filter,
    name: Literal["usages", "payments"],
    sort: str,
    ticket: str,
) -> Response:
    if kind not in export_formats.formats():
        raise Problem(
            "Parquet is not installed here: pip install 'taximeter[parquet]'.", status=501, title="Not installed"
        )
    if name == "payments":
        wanted, query = filtered.Filter(), ""
    with house.database() as conn:
        viewer = admit(request, conn, workspace_id)
        found = house.summary(conn, workspace_id)
        first, last = 1, found.usage_count if name == "usages" else found.payment_count
    if not wanted.empty:
        _catch_up(house, workspace_id, last)
    ticket = ticket or secrets.token_urlsafe(16)
    with house.database(workspace_id) as conn:
        total: int | None = last
        if not wanted.empty:
            totals = filtered.totals(conn, workspace_id, wanted)
            total = None if totals.more else totals.usages
        if wanted.since is not None:
            first = usages.seq_at(conn, workspace_id, wanted.since)
        if wanted.until is not None:
            last = min(last, usages.seq_at(conn, workspace_id, wanted.until) - 1)
        names = {"log": name, "kind": kind, "query": query}
        if not exports.begin(conn, workspace_id, ticket, **names, by=viewer.subject, total=total):
            raise Problem("This ticket was used before. Choose another.", status=409, title="Used before")
    job = Job(workspace_id, ticket, name, kind, wanted, first, last, sort == "newest")
    file = f"{name}-{workspace_id.replace(':', '_')}.{kind}"
    headers = {"content-disposition": f'attachment; filename="{file}"', "x-accel-buffering": "no"}
    if kind == export_formats.PARQUET:
        headers["content-encoding"] = "identity"  # it is compressed already
    return StreamingResponse(_stream(house, job), media_type=export_formats.MEDIA_TYPES[kind], headers=headers)


def _catch_up(house: House, workspace_id: str, count: int) -> None:
    for _ in range(_ROLL_UP_RUNS_MAX):
        with house.database(workspace_id) as conn:
            reached, _ = rollups.follow(conn, workspace_id, rollups.RUN_MAX)
        if reached >= count:
            return


def _stream(house: House, job: Job) -> Iterator[bytes]:
    """The file, part by part, each written down once it is on its way."""
    write: Callable[..., Any] = _WRITERS[job.kind]
    state, done = "failed", 0
    try:
        for data, rows in write(_SHEETS[job.log], _windows(house, job)):
            done += rows
            if data:
                yield data
            with house.database(job.workspace_id) as conn:
                if rows and not exports.move(conn, job.workspace_id, job.ticket, done):
                    # Raised, so that the connection breaks: a file that ended here would look whole.
                    raise ExportEnded
        state = "done"
    except GeneratorExit:  # whoever was downloading went away
        state = "cancelled"
        raise
    finally:
        try:
            with house.database(job.workspace_id) as conn:
                exports.end(conn, job.workspace_id, job.ticket, state)
        except Problem:
            log.warning("the end of an export could not be written down")


def _windows(house: House, job: Job) -> Iterator[tuple[bytes, int]]:
    """Window by window, each on a connection borrowed for it alone: a slow reader holds none."""
    sheet = _SHEETS[job.log]
    low, high = job.first, job.last
    while low <= high:
        first = max(low, high - copying.WINDOW_ROWS + 1) if job.newest else low
        last = high if job.newest else min(high, low + copying.WINDOW_ROWS - 1)
        with house.database(job.workspace_id) as conn:
            data, rows = copying.window(
                conn, sheet, job.workspace_id, job.wanted, first, last, newest=job.newest, raw=job.kind != "csv"
            )
            if job.newest:
                high = first - 1
            else:
                low = last + 1
            if not rows and low <= high:  # few match: on to the next one
                low, high = _next(conn, job, low, high)
        yield data, rows


def _next(conn: Any, job: Job, low: int, high: int) -> tuple[int, int]:
    """What is left from the next match on."""
    page = filtered.search(
        conn, job.workspace_id, job.wanted, after=low - 1, before=high + 1, newest=job.newest, limit=1
    )
    place = page.rows[0].seq if page.rows else page.place
    if place is None:
        return high + 1, high
    return (low, place) if job.newest else (place, high)
