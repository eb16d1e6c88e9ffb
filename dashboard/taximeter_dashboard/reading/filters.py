"""The filter of the usages tab: from the address to the ledger's terms and back."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlencode

import msgspec
from fastapi import Query
from psycopg import Connection

from taximeter_dashboard.errors import ProblemError
from taximeter_dashboard.reading.listing import PAGE_ROWS
from taximeter_db import money
from taximeter_db.ledger import rollups
from taximeter_db.queries import filtered, usages
from taximeter_db.queries.usages import UsageRow

LEAST: Final = rollups.BANDS
ROLL_UP_MAX: Final = 20_000
"""Usages that a view rolls up by itself when the worker's task has not come to them yet."""
NO_NUL: Final = r"^[^\x00]*$"
"""No address holds one (see security.py): said here, so that the API's document says it."""

Text = Annotated[str, Query(max_length=255)]
Day = Annotated[str, Query(max_length=10)]
Bound = Annotated[int | None, Query(ge=0, le=10**15)]


class Asked(msgspec.Struct, frozen=True):
    """The filter as it stands in the address; empty texts mean anything.

    `id` is the start of an event id, `tag` is ``key=text``.
    """

    tool: str = ""
    model: str = ""
    since: str = ""
    until: str = ""
    least: str = ""
    id: str = ""
    user: str = ""
    tag: str = ""

    @property
    def active(self) -> bool:
        """Whether it leaves anything out."""
        return self != Asked()

    @property
    def query(self) -> str:
        """The address's query, without what is empty."""
        return urlencode(self.fields)

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Names and values of what is not empty."""
        return [(name, value) for name, value in msgspec.to_builtins(self).items() if value]

    def wanted(self, where: zoneinfo.ZoneInfo) -> filtered.Filter:
        """The ledger's terms. Days are those of the viewer's zone.

        Raises:
            ProblemError: 422, a day does not exist, or an amount is not one of those offered.
        """
        since, until = _day(self.since, "since"), _day(self.until, "until")
        if self.least and self.least not in LEAST:
            raise ProblemError(f"least: one of {', '.join(LEAST)} can be asked for.", status=422, title="Not valid")
        start = self.id.strip()
        if not start.isascii() or not start.isprintable():
            raise ProblemError("id: ids have printable ASCII characters alone.", status=422, title="Not valid")
        key, is_tag, text = self.tag.replace("\x00", "").partition("=")
        if self.tag and not (key and is_tag and text):
            raise ProblemError("tag: a key and its text such as team=search are needed.", status=422, title="Not valid")
        return filtered.Filter(
            tool=self.tool.replace("\x00", "") or None,
            model=self.model.replace("\x00", "") or None,
            since=_midnight(since, where) if since else None,
            until=_midnight(until + dt.timedelta(days=1), where) if until else None,
            cost_min=money.parse_usd(self.least) if self.least else None,
            id_start=start or None,
            user=self.user.replace("\x00", "") or None,
            tag=(key, text) if self.tag else None,
        )


class Found(msgspec.Struct, frozen=True):
    """A page of matches. `back` and `on` are the queries of its neighbours, `behind` the usages not yet searchable."""

    rows: list[UsageRow]
    totals: filtered.Totals
    behind: int
    back: str | None
    on: str | None

    def words(self, number: int | None) -> str:
        """``Page 3 of 61``, as far as that is known: of a page that was gone to by its time, only how many there are."""
        pages = max(1, -(-self.totals.usages // PAGE_ROWS))
        many = "" if self.totals.more else f"{pages:,}"
        if number is None:
            return f"{many} pages in all" if many else ""
        return f"Page {number:,} of {many}" if many else f"Page {number:,}"

    def last(self) -> int | None:
        """The number of the last page, where that is known."""
        return None if self.totals.more else max(1, -(-self.totals.usages // PAGE_ROWS))


def ask(  # noqa: PLR0913 -- the terms of a question to the page
    tool: Text = "",
    model: Text = "",
    since: Day = "",
    until: Day = "",
    least: Text = "",
    id: Text = "",  # noqa: A002 - the name in the address
    user: Text = "",
    tag: Text = "",
) -> Asked:
    """The filter of a request."""
    return Asked(tool, model, since, until, least, id, user, tag)


def _day_of(description: str, example: str) -> Any:
    """A day as a text: as a date it could also be a number of seconds, which the document does not offer."""
    return Query(
        description=description,
        examples=[example],
        pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
        json_schema_extra={"format": "date"},
    )


def ask_api(  # noqa: PLR0913 -- the terms of a question to the page
    tool: Annotated[str, Query(max_length=255, pattern=NO_NUL, examples=["chat"])] = "",
    model: Annotated[str, Query(max_length=255, pattern=NO_NUL, examples=["gpt-4o"])] = "",
    since: Annotated[str | None, _day_of("First day, of the zone.", "2026-11-01")] = None,
    until: Annotated[str | None, _day_of("Last day, of the zone.", "2026-11-30")] = None,
    least: Annotated[
        Literal["0.001", "0.01", "0.10", "1.00"] | None, Query(description="Cost in USD at least.")
    ] = None,
    id: Annotated[  # noqa: A002 - the name in the address
        str, Query(max_length=255, pattern="^[ -~]*$", description="Start of the event id.", examples=["0199c7f2"])
    ] = "",
    user: Annotated[
        str, Query(max_length=128, pattern=NO_NUL, description="Who within the workspace.", examples=["u-17"])
    ] = "",
    tag: Annotated[
        str,
        Query(
            max_length=97,
            pattern=r"^([a-z0-9_.\-]{1,32}=[^\x00]{1,64})?$",
            description="A tag: its key, an equals sign, its text.",
            examples=["team=search"],
        ),
    ] = "",
) -> Asked:
    """The filter of a request of the API."""
    return Asked(tool, model, since or "", until or "", least or "", id, user, tag)


def require_named(conn: Connection[Any], workspace_id: str, wanted: filtered.Filter) -> None:
    """Deny a filter by a name that may be counted among others: it would not find all.

    Raises:
        ProblemError: 422, and what there is instead.
    """
    parameter = filtered.unnamed(conn, workspace_id, wanted)
    if parameter in {"user", "tag"}:
        raise ProblemError(
            f"{parameter}: This workspace has used more than {rollups.VALUES_MAX:,} users or texts of this tag, or more than"
            f" {rollups.LABELS_MAX - 1} keys of tags. Those beyond are counted together and cannot be filtered. An export"
            " of all has every one.",
            status=422,
            title="Not valid",
        )
    if parameter is not None:
        raise ProblemError(
            f"{parameter}: This workspace has used more than {rollups.NAMES_MAX} pairs of tool and model. Those beyond are"
            " counted as other names and cannot be filtered; a model can be where its tool is given too. An export of all"
            " has every one.",
            status=422,
            title="Not valid",
        )


def find(
    conn: Connection[Any],
    workspace_id: str,
    wanted: filtered.Filter,
    sort: str,
    place: tuple[str, int] | None,
    *,
    exactly: bool = False,
) -> Found:
    """A page of matches: the first one, or what lies ``before`` or ``after`` a number, or the last one (``end``)."""
    reached, count = rollups.follow(conn, workspace_id, ROLL_UP_MAX)
    require_named(conn, workspace_id, wanted)
    newest = sort == "newest"
    kind, number = place or ("", 0)
    known = filtered.ids(conn, workspace_id, wanted)
    totals = filtered.totals(conn, workspace_id, wanted, exactly=exactly, known=known)
    # The last page holds what the pages before it leave, so that it is the same from either end.
    rows_max = PAGE_ROWS if kind != "end" or totals.more else totals.usages % PAGE_ROWS or PAGE_ROWS
    # Reading towards lower numbers, from the top or from some number on; or towards higher ones.
    down = newest if not kind else (kind == "before" if kind != "end" else not newest)
    window = filtered.Window(
        before=number if kind == "before" else filtered.LAST,
        after=number if kind == "after" else 0,
        newest=down,
        limit=rows_max + 1,
    )
    page = filtered.search(conn, workspace_id, wanted, window, known)
    more = len(page.rows) > rows_max
    rows = page.rows[:rows_max]
    rows.sort(key=lambda row: row.seq, reverse=newest)
    forwards = down == newest
    has_on = more if forwards else kind != "end"
    has_back = bool(kind) if forwards else more
    towards, backwards = ("before", "after") if newest else ("after", "before")
    # A search that stopped on its way goes on from there, even where it found nothing yet.
    last = page.place if page.place is not None and forwards else rows[-1].seq if rows and has_on else None
    first = page.place if page.place is not None and not forwards else rows[0].seq if rows and has_back else None
    return Found(
        rows=rows,
        totals=totals,
        behind=count - reached,
        back=None if first is None else f"{backwards}={first}",
        on=None if last is None else f"{towards}={last}",
    )


def place_at(
    conn: Connection[Any], workspace_id: str, text: str, sort: str, where: zoneinfo.ZoneInfo
) -> tuple[str, int]:
    """Where in a list to begin so that it goes on from a minute of the viewer's clock.

    Raises:
        ProblemError: 422, it is not such a minute.
    """
    try:
        local = dt.datetime.fromisoformat(text)
    except ValueError:
        local = dt.datetime.min  # noqa: DTZ901 - only to be refused
    if local.tzinfo is not None or not 1970 <= local.year <= 2999:
        raise ProblemError("at: a minute such as 2026-11-22T10:00 is needed.", status=422, title="Not valid")
    moment = local.replace(tzinfo=where)
    if sort == "newest":
        return "before", usages.seq_at(conn, workspace_id, moment + dt.timedelta(minutes=1))
    return "after", usages.seq_at(conn, workspace_id, moment) - 1


def _day(text: str, name: str) -> dt.date | None:
    if not text:
        return None
    try:
        day = dt.date.fromisoformat(text)
    except ValueError:
        raise ProblemError(f"{name}: a day such as 2026-11-22 is needed.", status=422, title="Not valid") from None
    # Nothing was booked outside of these years, and every zone can say when their days begin.
    return min(max(day, dt.date(1970, 1, 2)), dt.date(2999, 12, 30))


def _midnight(day: dt.date, where: zoneinfo.ZoneInfo) -> dt.datetime:
    return dt.datetime(day.year, day.month, day.day, tzinfo=where).astimezone(dt.UTC)
