"""Quarantine: what could not be booked, kept whole until it is replayed or dismissed.

An entry is never changed or deleted; it can be resolved once, with who did it and why (the database holds to that).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import msgspec
from psycopg import Connection

from taximeter_db.errors import NotFoundError

BOOKED, DUPLICATE, DISMISSED, REPLAYED = "booked", "duplicate", "dismissed", "replayed"

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
    values = {"ids": list(ids), "resolution": resolution, "by": by, "note": note}
    return [row[0] for row in conn.execute(_RESOLVE, values)]


def dismiss(conn: Connection[Any], entry_id: int, *, by: str, note: str) -> Entry:
    """Close an entry without booking it, with a reason.

    Raises:
        NotFoundError: There is none with that number, or it was resolved before.
        ValueError: No reason was given.
    """
    if not note.strip():
        raise ValueError("Say why this event is dismissed; the reason stays with it.")
    if not resolve(conn, [entry_id], DISMISSED, by=by, note=note):
        entry = get(conn, entry_id)
        raise NotFoundError(f"Quarantine entry {entry_id} was resolved before ({entry.resolution}); it stays as it is.")
    return get(conn, entry_id)
