"""Quarantine: what could not be booked, kept whole until it is replayed or dismissed.

An entry is never changed or deleted; it can be resolved once, with who did it and why (the database holds to that). Every
attempt at an entry is logged with who made it, when, and what came of it; so is the correction that was tried.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import msgspec
from psycopg import Connection

from taximeter_db.errors import NotFoundError
from taximeter_db.ledger_common import storable

DISMISSED, REPLAYED = "dismissed", "replayed"

_COLUMNS = """id, kind, workspace_id, event_id, reason, detail, event, content_type, received_at,
              resolved_at, resolution, resolved_by, resolution_note"""
_GET = f"SELECT {_COLUMNS} FROM taximeter.quarantine WHERE id = %s"  # noqa: S608  (fixed text)
_LIST = f"""
SELECT {_COLUMNS} FROM taximeter.quarantine
WHERE (%(resolved)s OR resolved_at IS NULL)
  AND (%(reason)s::text IS NULL OR reason = %(reason)s)
  AND (%(workspace_id)s::text IS NULL OR workspace_id = %(workspace_id)s)
  AND id > %(after)s
ORDER BY id LIMIT %(limit)s
"""  # noqa: S608  (fixed text)
_COUNTS = """
SELECT reason, count(*) FROM taximeter.quarantine WHERE resolved_at IS NULL GROUP BY reason ORDER BY reason
"""
_RESOLVE = """
UPDATE taximeter.quarantine
SET resolved_at = clock_timestamp(), resolution = %(resolution)s, resolved_by = %(by)s, resolution_note = %(note)s
WHERE id = ANY(%(ids)s::bigint[]) AND resolved_at IS NULL
RETURNING id
"""

_LOG = """
INSERT INTO taximeter.quarantine_actions (entry_id, action, result, reason, detail, note, correction, done_by)
VALUES (%(entry_id)s, %(action)s, %(result)s, %(reason)s, %(detail)s, %(note)s, %(correction)s, %(by)s)
"""
_ACTIONS = """
SELECT entry_id, action, result, reason, detail, note, correction, done_by, done_at
FROM taximeter.quarantine_actions WHERE entry_id = %s ORDER BY id
"""


class Entry(msgspec.Struct, frozen=True):
    """One quarantined event. `event` is the bytes as received: inputs and outputs included, so mind who sees it."""

    id: int
    kind: str
    workspace_id: str | None
    event_id: str | None
    reason: str
    detail: str
    event: bytes
    content_type: str | None
    received_at: dt.datetime
    resolved_at: dt.datetime | None
    resolution: str | None
    resolved_by: str | None
    resolution_note: str | None


class Action(msgspec.Struct, frozen=True):
    """Something that was tried with an entry: ``replay`` or ``dismiss``.

    `result` is ``booked``, ``duplicate``, ``kept`` (with `reason` and `detail` of what still stands in the way) or
    ``dismissed``; `correction` the event that was tried in the entry's place, inputs and outputs included.
    """

    entry_id: int
    action: str
    result: str
    reason: str | None
    detail: str | None
    note: str | None
    correction: bytes | None
    done_by: str
    done_at: dt.datetime


def get(conn: Connection[Any], entry_id: int) -> Entry:
    """One entry, resolved or not.

    Raises:
        NotFoundError: There is none with that number.
    """
    row = conn.execute(_GET, [entry_id]).fetchone()
    if row is None:
        raise NotFoundError(
            f"There is no quarantine entry {entry_id}. `taximeter quarantine list` shows what there is."
        )
    return Entry(*row)


def find(
    conn: Connection[Any],
    *,
    reason: str | None = None,
    workspace_id: str | None = None,
    resolved: bool = False,
    after: int = 0,
    limit: int = 100,
) -> list[Entry]:
    """Entries by ascending number, after a given one; open ones only, unless `resolved`."""
    values = {"reason": reason, "workspace_id": workspace_id, "resolved": resolved, "after": after, "limit": limit}
    return [Entry(*row) for row in conn.execute(_LIST, values)]


def open_counts(conn: Connection[Any]) -> dict[str, int]:
    """Number of open entries by reason."""
    return dict(conn.execute(_COUNTS).fetchall())


def resolve(
    conn: Connection[Any], ids: Sequence[int], resolution: str, *, by: str, note: str | None = None
) -> list[int]:
    """Mark open entries as resolved; returns the numbers of those that were still open."""
    values = {"ids": list(ids), "resolution": resolution, "by": by, "note": None if note is None else storable(note)}
    return [row[0] for row in conn.execute(_RESOLVE, values)]


def log_replay(
    conn: Connection[Any],
    entry_id: int,
    result: str,
    *,
    by: str,
    reason: str | None = None,
    detail: str | None = None,
    correction: bytes | None = None,
    note: str | None = None,
) -> None:
    """Log an attempt to book an entry, with the event that was tried in its place if there was one."""
    _log(conn, entry_id, "replay", result, by=by, reason=reason, detail=detail, correction=correction, note=note)


def _log(
    conn: Connection[Any],
    entry_id: int,
    action: str,
    result: str,
    *,
    by: str,
    reason: str | None = None,
    detail: str | None = None,
    note: str | None = None,
    correction: bytes | None = None,
) -> None:
    values = {
        "entry_id": entry_id,
        "action": action,
        "result": result,
        "reason": reason,
        "detail": None if detail is None else storable(detail),
        "note": None if note is None else storable(note),
        "correction": correction,
        "by": by,
    }
    conn.execute(_LOG, values)


def actions(conn: Connection[Any], entry_id: int) -> list[Action]:
    """What was tried with an entry, the oldest first."""
    return [Action(*row) for row in conn.execute(_ACTIONS, [entry_id])]


def dismiss(conn: Connection[Any], entry_id: int, *, by: str, note: str) -> Entry:
    """Close an entry without booking it, with a reason.

    Raises:
        NotFoundError: There is none with that number, or it was resolved before.
        ValueError: No reason was given.
    """
    if not note.strip():
        raise ValueError("Say why this event is dismissed; the reason stays with it.")
    with conn.transaction():
        if not resolve(conn, [entry_id], DISMISSED, by=by, note=note):
            entry = get(conn, entry_id)
            raise NotFoundError(
                f"Quarantine entry {entry_id} was resolved before ({entry.resolution}); it stays as it is."
            )
        _log(conn, entry_id, "dismiss", "dismissed", by=by, note=note)
    return get(conn, entry_id)
