"""A task that keeps the page's rollups close behind the log."""

from __future__ import annotations

import time
from typing import Any

from taximeter_db import rollups
from taximeter_db.connect import connection
from taximeter_worker.settings import Settings

ROLL_UP = "taximeter.roll_up"
SECONDS = 10.0
_BUDGET_SECONDS = 8.0
_LOCK = 7480312911
"""Advisory lock of the worker that rolls up: every worker has a beat, and two at it would do it twice."""

BEAT_SCHEDULE: dict[str, dict[str, Any]] = {
    "roll_up": {"task": ROLL_UP, "schedule": SECONDS, "options": {"expires": SECONDS}},
}


def register(app: Any, settings: Settings) -> None:
    """Add the task to a Celery app."""

    @app.task(name=ROLL_UP)
    def roll_up() -> int:
        """Roll up what is most behind, for some seconds; the next round goes on. One worker at a time."""
        ends = time.monotonic() + _BUDGET_SECONDS
        done = 0
        with connection(settings.database_url) as conn:
            row = conn.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK]).fetchone()
            if row is None or not row[0]:  # the connection's end gives it back
                return 0
            for workspace_id in rollups.behind(conn):
                reached, count = 0, 1
                while reached < count and time.monotonic() < ends:
                    reached, count = rollups.advance(conn, workspace_id)
                    done += 1
                if time.monotonic() >= ends:
                    break
        return done
