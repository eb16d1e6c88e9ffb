"""Rollups of the usage log per UTC quarter-hour, tool, model and band of cost, with running totals; and sorted event ids.

Derived, so they can be rebuilt at any time: `rollup_progress.seq` says how far a workspace's log is in them. They follow the time of
recording, so that a period once past never changes, and so that a slot is a run of sequence numbers. Every zone's hours
and days begin at a quarter of an hour of UTC.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, Final

from psycopg import Connection
from sqlalchemy import bindparam, delete, distinct, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from taximeter_db.core import Statement
from taximeter_db.models.page import LabelRollup, LabelTotal, RollupProgress, UsageIdPage, UsageName, UsageRollup
from taximeter_db.sql import statement, statements

RUN_MAX = 50_000
"""Usages in one transaction: about half a second."""
BANDS: Final = ("0.001", "0.01", "0.10", "1.00")
"""Costs in USD at which a band begins: what a filter by cost can ask for, and have totalled."""
BLOCK_USAGES: Final = 1_024
"""Of the log in one row at most: what a search for the next match has to read through."""
NAMES_MAX: Final = 300
"""Pairs of tool and model that a workspace's rollups name: a chart reads a row of each at each of its edges."""
OTHER: Final = "\x7fother names"
"""What tools and models beyond `NAMES_MAX` stand under; no provider's model begins with a control character."""
USER: Final = "user"
"""The label of a usage's user."""
TAG: Final = "tag:"
"""How the label of a tag begins; its key follows."""
LABELS_MAX: Final = 50
"""Labels that a workspace's rollups name: its users and 49 keys of tags."""
VALUES_MAX: Final = 3_000
"""Values of a label that they name: a breakdown looks up what each cost before its span."""
ID_RUN_USAGES: Final = 8_192
ID_PAGE_IDS: Final = 512
_ROLL_UP = statement("roll_up")
_SORT_IDS = statement("sort_ids")
_PROGRESS = statements("rollup_progress")
_BEGIN = Statement(
    insert(RollupProgress).values(workspace_id=bindparam("workspace_id"), seq=0).on_conflict_do_nothing()
)
_REACH = Statement(
    update(RollupProgress)
    .where(RollupProgress.workspace_id == bindparam("workspace_id"))
    .values(seq=bindparam("reached"), labels_seq=bindparam("labels_reached"))
)
_ROLL_UP_LABELS = statement("roll_up_labels")
_SEQ_AT = statement("seq_at")
_CROWDED = Statement(
    select(UsageName.workspace_id)
    .group_by(UsageName.workspace_id)
    .having(func.count(distinct(tuple_(UsageName.tool, UsageName.model))) > bindparam("pairs"))
    .order_by(UsageName.workspace_id)
)
_FORGET = tuple(
    Statement(delete(table).where(table.workspace_id == bindparam("workspace_id")))
    for table in (UsageRollup, UsageName, UsageIdPage, LabelRollup, LabelTotal, RollupProgress)
)


def behind(conn: Connection[Any], limit: int = 500) -> list[str]:
    """Workspaces whose rollups lag behind their logs, those that lag most first."""
    return [row[0] for row in conn.execute(_PROGRESS["behind"], {"limit": limit})]


def progress(conn: Connection[Any], workspace_id: str) -> tuple[int, int]:
    """How far a workspace's rollups reach, and the last usage that there is."""
    row = conn.execute(_PROGRESS["progress"], {"workspace_id": workspace_id}).fetchone()
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
        _BEGIN.run(conn, workspace_id=workspace_id)
        row = conn.execute(_PROGRESS["lock"], {"workspace_id": workspace_id}).fetchone()
        if row is None:  # a workspace that was never seen
            return 0, 0
        reached, labels_reached, count, labels_since = row
        last = min(count, reached + run_max)
        if labels_reached is None:
            labels_reached = _first_with_labels(conn, workspace_id, labels_since) - 1
        labels_last = max(labels_reached, min(count, labels_reached + run_max))
        if labels_last > labels_reached:
            _roll_up_labels(conn, workspace_id, labels_reached + 1, labels_last)
        if last > reached:
            run = {"workspace_id": workspace_id, "first": reached + 1, "last": last}
            conn.execute(
                _ROLL_UP,
                {**run, "bands": list(BANDS), "block_usages": BLOCK_USAGES, "names_max": NAMES_MAX, "other": OTHER},
            )
            _sort_ids(conn, workspace_id, reached, last)
        _REACH.run(conn, workspace_id=workspace_id, reached=last, labels_reached=labels_last)
        return min(last, labels_last), count


def _first_with_labels(conn: Connection[Any], workspace_id: str, since: dt.datetime) -> int:
    """The number of the first usage that may bear a label."""
    row = conn.execute(_SEQ_AT, {"workspace_id": workspace_id, "moment": since}).fetchone()
    return int(row[0]) if row else 1


def _roll_up_labels(conn: Connection[Any], workspace_id: str, first: int, last: int) -> None:
    values = {
        "workspace_id": workspace_id,
        "first": first,
        "last": last,
        "block_usages": BLOCK_USAGES,
        "user": USER,
        "tag": TAG,
        "labels_max": LABELS_MAX,
        "values_max": VALUES_MAX,
        "other": OTHER,
    }
    conn.execute(_ROLL_UP_LABELS, values)


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


def crowded(conn: Connection[Any]) -> list[str]:
    """Workspaces whose rollups name more than they would today: 0.1.0 had no bound."""
    # The named pairs, the other models of each named tool, and the other tools.
    return [row[0] for row in _CROWDED.all(conn, pairs=2 * NAMES_MAX + 1)]


def rebuild(conn: Connection[Any], workspace_id: str, reached: Callable[[int], None] = lambda _seq: None) -> int:
    """Make a workspace's rollups again from its log, beside bookings; charts are short of usages until it is through.

    Args:
        conn: As the tables' owner, outside of a transaction.
        workspace_id: Whose.
        reached: Told how far they reach, again and again.

    Returns:
        The last usage that they hold.
    """
    with conn.transaction():
        conn.execute(_PROGRESS["lock"], {"workspace_id": workspace_id})
        for forget in _FORGET:
            forget.run(conn, workspace_id=workspace_id)
    while True:
        seq, count = advance(conn, workspace_id)
        reached(seq)
        if seq >= count:
            return seq
