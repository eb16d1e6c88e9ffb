"""Ends the periods of budgets, and lifts what they had used up."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from taximeter_db.budgets import periods
from taximeter_worker.flags.publisher import FlagPublisher
from taximeter_worker.tasks.definition import TaskDefinition

SECONDS = 5.0
END_PERIODS = TaskDefinition("taximeter.end_budget_periods", every_seconds=SECONDS, expires_seconds=SECONDS)


def end_periods(conn: Connection[Any], publisher: FlagPublisher) -> int:
    """Begin the periods that are due, and write the flags that change with them; returns how many flags that were."""
    flags = 0
    for states in periods.end_periods(conn):
        publisher.publish(conn, states, owed=True)
        flags += len(states)
    return flags
