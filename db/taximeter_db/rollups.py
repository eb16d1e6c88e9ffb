"""Rollups of the usage log per UTC quarter-hour, tool and model.

Derived, and safe to make anew: `rollup_progress.seq` says how far a workspace's log is in them. They follow the time of
recording, so that a period once past never changes, and so that a slot is a run of sequence numbers. Every zone's hours
and days begin at a quarter of an hour of UTC.
"""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from taximeter_db.sql import statement

RUN_MAX = 50_000
"""Usages in one transaction: about half a second."""
_ROLL_UP = statement("roll_up")
_BEHIND = """
SELECT w.workspace_id FROM taximeter.workspaces AS w
LEFT JOIN taximeter.rollup_progress AS p USING (workspace_id)
WHERE w.usage_count > coalesce(p.seq, 0) LIMIT %s
"""
_LOCK = """
SELECT p.seq, w.usage_count FROM taximeter.rollup_progress AS p JOIN taximeter.workspaces AS w USING (workspace_id)
WHERE p.workspace_id = %s FOR UPDATE OF p
"""
_NAMES = """
INSERT INTO taximeter.usage_names (workspace_id, tool, model)
SELECT DISTINCT workspace_id, tool, model FROM taximeter.usage_rollups
WHERE workspace_id = %(workspace_id)s AND last_seq BETWEEN %(first)s AND %(last)s
  AND slot >= (SELECT date_bin('15 minutes', recorded_at, 'epoch') FROM taximeter.usages
               WHERE workspace_id = %(workspace_id)s AND seq = %(first)s)
ON CONFLICT DO NOTHING
"""


def behind(conn: Connection[Any], limit: int = 500) -> list[str]:
    """Workspaces whose rollups lag behind their logs."""
    return [row[0] for row in conn.execute(_BEHIND, [limit])]


def advance(conn: Connection[Any], workspace_id: str, run_max: int = RUN_MAX) -> tuple[int, int]:
    """Roll up the next usages of a workspace.

    Returns:
        How far the rollups reach now, and the last usage that there is.
    """
    with conn.transaction():
        conn.execute(
            "INSERT INTO taximeter.rollup_progress (workspace_id, seq) VALUES (%s, 0) ON CONFLICT DO NOTHING",
            [workspace_id],
        )
        row = conn.execute(_LOCK, [workspace_id]).fetchone()
        if row is None:  # a workspace that was never seen
            return 0, 0
        reached, count = row
        last = min(count, reached + run_max)
        if last > reached:
            run = {"workspace_id": workspace_id, "first": reached + 1, "last": last}
            conn.execute(_ROLL_UP, run)
            conn.execute(_NAMES, run)
            conn.execute("UPDATE taximeter.rollup_progress SET seq = %s WHERE workspace_id = %s", [last, workspace_id])
        return last, count
