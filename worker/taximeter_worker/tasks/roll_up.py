"""Keeps the page's rollups close behind the log."""

from __future__ import annotations

import time
from typing import Any

from psycopg import Connection

from taximeter_db import locks
from taximeter_db.ledger import rollups
from taximeter_db.locks import AdvisoryLock
from taximeter_worker.errors import LockTakenError
from taximeter_worker.tasks.definition import TaskDefinition

SECONDS = 10.0
BUDGET_SECONDS = 8.0
ROLL_UP = TaskDefinition("taximeter.roll_up", every_seconds=SECONDS, expires_seconds=SECONDS)


def roll_up(conn: Connection[Any]) -> int:
    """Roll up what is most behind, for some seconds; the next round goes on. Returns the number of steps.

    Raises:
        LockTakenError: Another worker is at it; two would do it twice.
    """
    ends = time.monotonic() + BUDGET_SECONDS
    done = 0
    with locks.try_hold(conn, AdvisoryLock.ROLL_UP) as alone:
        if not alone:
            raise LockTakenError("Another worker rolls up at the moment.")
        for workspace_id in rollups.behind(conn):
            reached, count = 0, 1
            while reached < count and time.monotonic() < ends:
                reached, count = rollups.advance(conn, workspace_id)
                done += 1
            if time.monotonic() >= ends:
                break
    return done
