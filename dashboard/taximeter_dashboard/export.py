"""The export: usages as filtered, as CSV, streamed at constant memory.

Text cells that a spreadsheet would take for a formula get an apostrophe in front; amounts and quantities are bare decimals.
A stream that breaks ends with its connection and without the last chunk: browsers and curl report it as failed.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal

import msgspec
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response, StreamingResponse

from taximeter_dashboard import filters
from taximeter_dashboard.house import CurrentHouse, House, admit
from taximeter_dashboard.render import zone_of
from taximeter_db import rollups
from taximeter_db.money import format_usd
from taximeter_db.reading import UsageRow, filtered, usages

CHUNK_ROWS: Final = 1_000
HEADER: Final = (
    "seq", "event_id", "recorded_at", "occurred_at", "tool", "provider", "model", "quantities", "cost_usd",
    "balance_after_usd", "price_version",
)  # fmt: skip
# Where a cell begins: at the start, and after what a spreadsheet set to another separator cuts at. In full width too,
# which some spreadsheets take for the plain signs.
_FORMULA: Final = re.compile("(?:^|(?<=[;|\t\r\n]))(?=[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20])")
_ROLL_UP_RUNS_MAX: Final = 1_000

router = APIRouter(include_in_schema=False)
_quantities = msgspec.json.Encoder(decimal_format="number").encode


@router.get("/workspaces/{workspace_id}/export.csv")
def export_csv(
    request: Request,
    house: CurrentHouse,
    workspace_id: str,
    asked: Annotated[filters.Asked, Depends(filters.ask)],
    sort: Literal["newest", "oldest"] = "newest",
) -> Response:
    """What the list shows, all of it, up to the usages booked when the export began."""
    wanted = asked.wanted(zone_of(request))
    with house.database() as conn:
        admit(request, conn, workspace_id)
        count = house.summary(conn, workspace_id).usage_count
    if not wanted.empty:
        _catch_up(house, workspace_id, count)
    rows = _rows(house, workspace_id, wanted, count, newest=sort == "newest")
    headers = {
        "content-disposition": f'attachment; filename="usages-{workspace_id.replace(":", "_")}.csv"',
    }
    return StreamingResponse(_lines(rows), media_type="text/csv; charset=utf-8", headers=headers)


def _catch_up(house: House, workspace_id: str, count: int) -> None:
    for _ in range(_ROLL_UP_RUNS_MAX):
        with house.database(workspace_id) as conn:
            reached, _ = rollups.advance(conn, workspace_id)
        if reached >= count:
            return


def _rows(
    house: House, workspace_id: str, wanted: filtered.Filter, count: int, *, newest: bool
) -> Iterator[list[UsageRow]]:
    """Chunk by chunk, each on a connection borrowed for it alone: a slow reader holds none."""
    after, before = 0, count + 1
    while after + 1 < before:
        with house.database(workspace_id) as conn:
            if wanted.empty:
                first = max(after + 1, before - CHUNK_ROWS) if newest else after + 1
                rows = usages.between(conn, workspace_id, first, min(before - 1, first + CHUNK_ROWS - 1))
                rows = rows[::-1] if newest else rows
            else:
                rows = filtered.matches(
                    conn, workspace_id, wanted, after=after, before=before, newest=newest, limit=CHUNK_ROWS
                )
        if not rows:
            return
        yield rows
        if newest:
            before = rows[-1].seq
        else:
            after = rows[-1].seq


def _lines(chunks: Iterator[list[UsageRow]]) -> Iterator[bytes]:
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\r\n")
    writer.writerow(HEADER)
    for rows in chunks:
        writer.writerows(map(_cells, rows))
        yield sheet.getvalue().encode()
        sheet.seek(0)
        sheet.truncate()
    yield sheet.getvalue().encode()


def _cells(row: UsageRow) -> tuple[object, ...]:
    return (
        row.seq,
        harmless(row.event_id),
        _utc(row.recorded_at),
        _utc(row.occurred_at),
        harmless(row.tool),
        harmless(row.provider or ""),
        harmless(row.model or ""),
        _quantities(row.quantities).decode(),
        format_usd(row.cost),
        format_usd(row.balance_after),
        row.price_version,
    )


def harmless(text: str) -> str:
    """A text that no spreadsheet runs as a formula."""
    return _FORMULA.sub("'", text)


def _utc(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
