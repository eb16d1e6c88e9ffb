"""The end of budgets' periods: what a period had used up is lifted, by the clock of the database server."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any, Final

from psycopg import Connection

from taximeter_db.budgets import standing
from taximeter_db.budgets.standing import BY_PERIOD, Cause
from taximeter_db.ledger.booking import read_states
from taximeter_db.ledger.events import WorkspaceState
from taximeter_db.sql import statements

WORKSPACES_PER_STEP: Final = 200
_SQL = statements("budgets")


def end_periods(conn: Connection[Any], moment: dt.datetime | None = None) -> Iterator[list[WorkspaceState]]:
    """Begin new periods where one has ended in which something was reached.

    Several may do so at once: each step locks its workspaces, and what is no longer due then is left alone.

    Args:
        conn: From `taximeter_db.connect.booking_connection`, so that workspaces are locked in the order that booking keeps.
        moment: what is due by then; None: now.

    Yields:
        After each step, once it is committed, the states that the flags must now show. Their debts are noted.
    """
    while due := [row[0] for row in conn.execute(_SQL["due"], {"moment": moment, "limit": WORKSPACES_PER_STEP})]:
        with conn.transaction():
            moments = {name: at for name, _, at in conn.execute(_SQL["lock"], {"workspace_ids": due})}
            rows = conn.execute(
                _SQL["due_in"], {"workspace_ids": list(moments), "moments": list(moments.values())}
            ).fetchall()
            keys = [(workspace_id, name) for workspace_id, name in rows]
            told = standing.settle(conn, keys, moments, Cause(BY_PERIOD))
            standing.forget(conn, keys, moments)
        yield read_states(conn, told)
        if not keys:
            return
