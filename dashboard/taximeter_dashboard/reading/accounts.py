"""Statements and receipts, as the page and the JSON API ask for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated, Any, Final

from fastapi import Path
from psycopg import Connection

from taximeter_dashboard.errors import NotFoundError, ProblemError
from taximeter_db import errors
from taximeter_db.ledger import rollups
from taximeter_db.statements import pdf, reading, terms
from taximeter_db.statements.terms import Statement

ROLL_UP_MAX: Final = 1_000
"""Usages that are rolled up before a month is added up; what is left is read from the log, which is faster."""
Month = Annotated[
    str, Path(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$", description="Year and month.", examples=["2026-11"])
]


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Tell what goes wrong with a statement as the dashboard does.

    Raises:
        NotFoundError: There is no statement of that month.
        ProblemError: 500: it does not add up. 501: PDF is not installed.
    """
    try:
        yield
    except errors.NotFoundError as error:
        raise NotFoundError from error
    except errors.StatementError as error:
        missing = not pdf.installed()
        raise ProblemError(
            str(error), status=501 if missing else 500, title="Not installed" if missing else "Does not add up"
        ) from error


def statement(conn: Connection[Any], workspace_id: str, month: str) -> Statement:
    """The statement of a month, see `taximeter_db.statements.reading.read`. Raises as `told`."""
    rollups.follow(conn, workspace_id, ROLL_UP_MAX)
    with told():
        return reading.read(conn, workspace_id, terms.parse_month(month))


def listed(
    conn: Connection[Any], workspace_id: str, before: int | None, limit: int
) -> tuple[list[Statement], int | None]:
    """Statements, newest first, the running month too, and the number to go on before. Raises as `told`."""
    found: list[Statement] = []
    with told():
        if before is None:
            rollups.follow(conn, workspace_id, ROLL_UP_MAX)
            running = reading.present(conn, workspace_id)
            if running is None:
                return [], None
            found.append(running)
            before = running.period.number
        found += reading.closed(conn, workspace_id, before=before, limit=limit + 1 - len(found))
    return found[:limit], found[limit - 1].period.number if len(found) > limit else None
