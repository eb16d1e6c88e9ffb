"""Notices of budgets, written in the transaction in which a threshold is crossed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from psycopg import Connection

from taximeter_db.ledger.common import state_from_row
from taximeter_db.notices import compose, outbox
from taximeter_db.sql import statement

if TYPE_CHECKING:
    from taximeter_db.budgets.standing import Crossing

_READ_STATES = statement("read_states")


def announce(conn: Connection[Any], crossings: Sequence[Crossing]) -> None:
    """Put a notice of each crossing into the outbox; the caller holds the rows of the workspaces."""
    if not crossings:
        return
    names = sorted({crossing.workspace_id for crossing in crossings})
    states = {row[0]: state_from_row(row) for row in conn.execute(_READ_STATES, {"workspace_ids": names})}
    outbox.put(conn, [compose.of_budget_crossing(crossing, states[crossing.workspace_id]) for crossing in crossings])
