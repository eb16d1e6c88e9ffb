"""The filter of the usages tab: from the address to the ledger's terms and back."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import msgspec
from fastapi import Query
from psycopg import Connection

from taximeter_dashboard.errors import Problem
from taximeter_dashboard.panels import PAGE_ROWS
from taximeter_db import money, rollups
from taximeter_db.reading import UsageRow, filtered

LEAST: Final = ("0.001", "0.01", "0.10", "1.00")
_RUN_MAX: Final = 20_000
_LAST: Final = 2**62

Text = Annotated[str, Query(max_length=255)]
Bound = Annotated[int | None, Query(ge=0, le=10**15)]


class Asked(msgspec.Struct, frozen=True):
    """The filter as it stands in the address; empty texts mean anything."""

    tool: str = ""
    model: str = ""
    since: str = ""
    until: str = ""
    least: str = ""

    @property
    def active(self) -> bool:
        """Whether it leaves anything out."""
        return self != Asked()

    @property
    def query(self) -> str:
        """The address's query, without what is empty."""
        return urlencode([(name, value) for name, value in msgspec.to_builtins(self).items() if value])

    def wanted(self, where: zoneinfo.ZoneInfo) -> filtered.Filter:
        """The ledger's terms. Days are those of the viewer's zone.

        Raises:
            Problem: 422, a day is no day or an amount is not one of those offered.
        """
        since, until = _day(self.since, "since"), _day(self.until, "until")
        if self.least and self.least not in LEAST:
            raise Problem(f"least: one of {', '.join(LEAST)} can be asked for.", status=422, title="Not valid")
        return filtered.Filter(
            tool=self.tool.replace("\x00", "") or None,
            model=self.model.replace("\x00", "") or None,
            since=_midnight(since, where) if since else None,
            until=_midnight(until + dt.timedelta(days=1), where) if until else None,
            cost_min=money.parse_usd(self.least) if self.least else None,
        )


class Found(msgspec.Struct, frozen=True):
    """A page of matches. `back` and `on` are the queries of its neighbours, `behind` the usages not yet searchable."""

    rows: list[UsageRow]
    totals: tuple[int, int] | None
    behind: int
    back: str | None
    on: str | None


def ask(tool: Text = "", model: Text = "", since: Text = "", until: Text = "", least: Text = "") -> Asked:
    """The filter of a request."""
    return Asked(tool, model, since, until, least)


def find(
    conn: Connection[Any],
    workspace_id: str,
    wanted: filtered.Filter,
    sort: str,
    place: tuple[str, int] | None,
) -> Found:
    """A page of matches: the first one, or what lies ``before`` or ``after`` a number, or the last one (``end``)."""
    reached, count = rollups.advance(conn, workspace_id, _RUN_MAX)
    newest = sort == "newest"
    kind, number = place or ("", 0)
    # Reading towards lower numbers, from the top or from some number on; or towards higher ones.
    down = newest if not kind else (kind == "before" if kind != "end" else not newest)
    rows = filtered.matches(
        conn,
        workspace_id,
        wanted,
        before=number if kind == "before" else _LAST,
        after=number if kind == "after" else 0,
        newest=down,
        limit=PAGE_ROWS + 1,
    )
    more = len(rows) > PAGE_ROWS
    rows = rows[:PAGE_ROWS]
    rows.sort(key=lambda row: row.seq, reverse=newest)
    forwards = down == newest
    has_on = more if forwards else kind != "end"
    has_back = bool(kind) if forwards else more
    towards, backwards = ("before", "after") if newest else ("after", "before")
    return Found(
        rows=rows,
        totals=filtered.totals(conn, workspace_id, wanted),
        behind=count - reached,
        back=f"{backwards}={rows[0].seq}" if rows and has_back else None,
        on=f"{towards}={rows[-1].seq}" if rows and has_on else None,
    )


def _day(text: str, name: str) -> dt.date | None:
    if not text:
        return None
    try:
        day = dt.date.fromisoformat(text)
    except ValueError:
        day = dt.date.min
    if not 1970 <= day.year <= 2999:
        raise Problem(f"{name}: a day such as 2026-11-22 is needed.", status=422, title="Not valid")
    return day


def _midnight(day: dt.date, where: zoneinfo.ZoneInfo) -> dt.datetime:
    return dt.datetime(day.year, day.month, day.day, tzinfo=where).astimezone(dt.UTC)
