"""Rollups of the usage log per UTC quarter-hour, tool, model and band of cost, with running totals; and sorted event ids.

Derived, and safe to make anew: `rollup_progress.seq` says how far a workspace's log is in them. They follow the time of
recording, so that a period once past never changes, and so that a slot is a run of sequence numbers. Every zone's hours
and days begin at a quarter of an hour of UTC.
"""

from __future__ import annotations

from typing import Any, Final

from psycopg import Connection

from taximeter_db.sql import statement

RUN_MAX = 50_000
"""Usages in one transaction: about half a second."""
BANDS: Final = ("0.001", "0.01", "0.10", "1.00")
"""Costs in USD at which a band begins: what a filter by cost can ask for, and have totalled."""
BLOCK_USAGES: Final = 1_024
"""Of the log in one row at most: what a search for the next match has to read through."""
ID_RUN_USAGES: Final = 8_192
ID_PAGE_IDS: Final = 512
_ROLL_UP = statement("roll_up")
_SORT_IDS = statement("sort_ids")
_BEHIND = """
SELECT w.workspace_id FROM taximeter.workspaces AS w
LEFT JOIN taximeter.rollup_progress AS p USING (workspace_id)
WHERE w.usage_count > coalesce(p.seq, 0) ORDER BY w.usage_count - coalesce(p.seq, 0) DESC LIMIT %s
"""
_LOCK = """
SELECT p.seq, w.usage_count FROM taximeter.rollup_progress AS p JOIN taximeter.workspaces AS w USING (workspace_id)
WHERE p.workspace_id = %s FOR UPDATE OF p
"""
_PROGRESS = """
SELECT coalesce(p.seq, 0), w.usage_count FROM taximeter.workspaces AS w
LEFT JOIN taximeter.rollup_progress AS p USING (workspace_id) WHERE w.workspace_id = %s
"""


def behind(conn: Connection[Any], limit: int = 500) -> list[str]:
    """Workspaces whose rollups lag behind their logs, those that lag most first."""
    return [row[0] for row in conn.execute(_BEHIND, [limit])]


def progress(conn: Connection[Any], workspace_id: str) -> tuple[int, int]:
    """How far a workspace's rollups reach, and the last usage that there is."""
    row = conn.execute(_PROGRESS, [workspace_id]).fetchone()
    return (row[0], row[1]) if row else (0, 0)


def follow(conn: Connection[Any], workspace_id: str, run_max: int) -> tuple[int, int]:
    """Roll up the next usages if there are any: as `advance`, but only reads where nothing is to be done."""
    reached, count = progress(conn, workspace_id)
    return advance(conn, workspace_id, run_max) if reached < count else (reached, count)


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
            conn.execute(_ROLL_UP, {**run, "bands": list(BANDS), "block_usages": BLOCK_USAGES})
            _sort_ids(conn, workspace_id, reached, last)
            conn.execute("UPDATE taximeter.rollup_progress SET seq = %s WHERE workspace_id = %s", [last, workspace_id])
        return last, count


def _sort_ids(conn: Connection[Any], workspace_id: str, reached: int, last: int) -> None:
    """Sort the ids of the runs that have become whole."""
    first_run, runs = reached // ID_RUN_USAGES, last // ID_RUN_USAGES
    if runs > first_run:
        values = {
            "workspace_id": workspace_id,
            "first": first_run * ID_RUN_USAGES + 1,
            "last": runs * ID_RUN_USAGES,
            "run_usages": ID_RUN_USAGES,
            "page_ids": ID_PAGE_IDS,
        }
        conn.execute(_SORT_IDS, values)
