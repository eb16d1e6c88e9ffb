"""When AI went off and on within a period: the points of the chart and the lines of the list beneath it."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import msgspec
from psycopg import Connection

from taximeter_dashboard.charts.balance import Flip
from taximeter_dashboard.formatting import amounts, sentences, times
from taximeter_db import status_changes

CHANGES_MAX: Final = 200
PAGE_LINES: Final = 10


class Line(msgspec.Struct, frozen=True):
    """A line of the list, newest first. `balance` in picodollars; `lasted` until the next one, or until now."""

    flip: Flip
    at: dt.datetime
    cause: sentences.Piece
    balance: int
    minimum: int
    lasted: str
    still: bool


class Page(msgspec.Struct, frozen=True):
    """Some of the lines, and where they stand."""

    number: int
    pages: int
    lines: list[Line]

    @property
    def decimals(self) -> int:
        """How many decimals the column of balances needs."""
        return max((amounts.decimals(one.balance) for one in self.lines), default=2)


class Flips(msgspec.Struct, frozen=True):
    """The lines of a period; `more` where there were too many to read, `since` where the log does not reach back."""

    lines: list[Line]
    more: bool
    since: dt.datetime | None

    def page(self, wanted: int) -> Page:
        """A page of the list, counted from 1: the one wanted, or the last one there is."""
        pages = max(1, -(-len(self.lines) // PAGE_LINES))
        number = min(wanted, pages)
        return Page(number, pages, self.lines[(number - 1) * PAGE_LINES : number * PAGE_LINES])


def read(conn: Connection[Any], workspace_id: str, since: dt.datetime, now: dt.datetime) -> Flips:
    """The newest flips since a moment."""
    changes = status_changes.between(conn, workspace_id, since, now + dt.timedelta(days=1), CHANGES_MAX)
    found = [one for one in changes if one.flipped]
    ends = [now, *(one.changed_at for one in found)]
    lines = [
        Line(
            flip=Flip(one.changed_at, one.balance, len(found) - place, one.after == "insufficient"),
            at=one.changed_at,
            cause=sentences.culprit(one),
            balance=one.balance,
            minimum=one.minimum,
            lasted=times.duration((ends[place] - one.changed_at).total_seconds()),
            still=place == 0,
        )
        for place, one in enumerate(found)
    ]
    kept = status_changes.kept_since(conn)
    return Flips(lines, len(changes) == CHANGES_MAX, kept if kept > since else None)
