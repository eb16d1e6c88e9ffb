"""The two logs of a workspace, usages and payments, cut into pages by number: for the page and for the API alike.

Both are numbered from 1 without a gap in the order of booking, and the workspace's row knows the last number. So any page is
a range of numbers, costs the same wherever it lies, and arrivals shift nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec
from psycopg import Connection

from taximeter_db.queries import payments, usages
from taximeter_db.queries.payments import PaymentRow
from taximeter_db.queries.summary import Summary
from taximeter_db.queries.usages import UsageRow

PAGE_ROWS: Final = 20
Sort = Literal["newest", "oldest"]
Row = TypeVar("Row")


class Log(msgspec.Struct, Generic[Row], frozen=True):
    """One of the two: its name, its last number, and how a range of numbers is read."""

    name: str
    count: Callable[[Summary], int]
    between: Callable[[Connection[Any], str, int, int], list[Row]]


USAGES: Final[Log[UsageRow]] = Log("usages", lambda found: found.usage_count, usages.between)
PAYMENTS: Final[Log[PaymentRow]] = Log("payments", lambda found: found.payment_count, payments.between)


class Paging(msgspec.Struct, frozen=True):
    """Where a page stands among its fellows."""

    page: int
    pages: int
    sort: str
    upto: int

    def query(self, page: int) -> str:
        """The query of another page of the same list."""
        parts = [] if self.sort == "newest" else ["sort=oldest"]
        if page > 1:
            parts += [f"page={page}", f"upto={self.upto}"]
        return "?" + "&".join(parts) if parts else ""

    @property
    def words(self) -> str:
        """``page 3 of 500,000``."""
        return f"page {self.page:,} of {self.pages:,}"


def paging(count: int, sort: str, page: int, upto: int | None) -> Paging:
    """The page that was asked for, or the last one there is."""
    # Later pages carry the number they were counted from, so that arrivals never shift them.
    upto = count if upto is None or page == 1 else max(1, min(upto, count))
    pages = max(1, -(-upto // PAGE_ROWS))
    return Paging(min(page, pages), pages, sort, upto)


class Part(msgspec.Struct, frozen=True):
    """Up to `limit` rows of a list of `count`, from a number on (from the list's beginning if `start` is None)."""

    sort: str
    start: int | None
    limit: int
    count: int

    def read(self, conn: Connection[Any], log: Log[Row], workspace_id: str) -> tuple[list[Row], int | None]:
        """The rows in order, and the number that follows, if any."""
        if self.sort == "oldest":
            first = self.start or 1
            last = min(first + self.limit - 1, self.count)
            return log.between(conn, workspace_id, first, last), last + 1 if last < self.count else None
        last = self.count if self.start is None else min(self.start, self.count)
        first = max(1, last - self.limit + 1)
        return log.between(conn, workspace_id, first, last)[::-1], first - 1 if first > 1 else None


def by_page(
    conn: Connection[Any], log: Log[Row], found: Summary, sort: str, page: int, upto: int | None
) -> tuple[Paging, list[Row]]:
    """A numbered page: where it stands, and its rows in order."""
    place = paging(log.count(found), sort, page, upto)
    before = (place.page - 1) * PAGE_ROWS
    start = before + 1 if sort == "oldest" else place.upto - before
    rows, _ = Part(sort, start, PAGE_ROWS, place.upto).read(conn, log, found.workspace_id)
    return place, rows
