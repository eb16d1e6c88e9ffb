"""Destroying what a workspace's events said, and wrapping data keys anew. Both are the owner's work."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from psycopg import Connection

from taximeter_db.errors import NotFoundError
from taximeter_db.master_keys import MasterKeys
from taximeter_db.reading import access

FIELD: Final = "contents"
"""Under this name an erasure stands in the log of changes of the workspace's settings."""
_LOCK: Final = "UPDATE taximeter.workspaces SET payload_key = 0 WHERE workspace_id = %(id)s RETURNING 1"
_KEYS: Final = """
UPDATE taximeter.workspace_keys SET wrapped = NULL, erased_at = clock_timestamp()
WHERE workspace_id = %(id)s AND wrapped IS NOT NULL
"""
_NOT_ENCRYPTED: Final = """
UPDATE taximeter.usage_payloads SET payload = '', codec = -1 WHERE workspace_id = %(id)s AND codec IN (0, 1)
"""
_CORRECTIONS: Final = """
UPDATE taximeter.quarantine_actions SET correction = NULL
WHERE correction IS NOT NULL AND entry_id IN (SELECT id FROM taximeter.quarantine WHERE workspace_id = %(id)s)
"""
_QUARANTINE: Final = """
UPDATE taximeter.quarantine
SET event = '', resolution = coalesce(resolution, 'dismissed'), resolved_at = coalesce(resolved_at, clock_timestamp()),
    resolved_by = coalesce(resolved_by, %(by)s), resolution_note = coalesce(resolution_note, 'contents erased')
WHERE workspace_id = %(id)s AND event <> ''
"""
_LOG: Final = """
INSERT INTO taximeter.payload_erasures (workspace_id, erased_by, keys, usages, quarantined)
VALUES (%(id)s, %(by)s, %(keys)s, %(usages)s, %(quarantined)s)
"""
_WRAPPED: Final = """
SELECT workspace_id, number, wrapped, master FROM taximeter.workspace_keys
WHERE wrapped IS NOT NULL AND master <> %s AND (workspace_id, number) > (%s, %s)
ORDER BY workspace_id, number LIMIT 1000
"""
_REWRAP: Final = """
UPDATE taximeter.workspace_keys SET wrapped = %s, master = %s
WHERE workspace_id = %s AND number = %s AND master = %s AND wrapped IS NOT NULL
"""


class Erased(msgspec.Struct, frozen=True):
    """What was erased: data keys, contents of usages that were not encrypted, and quarantined events."""

    keys: int
    usages: int
    quarantined: int


def erase(conn: Connection[Any], workspace_id: str, *, by: str) -> Erased:
    """Make the contents of all of a workspace's events so far unreadable for ever; what they cost stays.

    Data keys are destroyed; what was never encrypted is overwritten; quarantined events are emptied and, if open,
    dismissed. What is booked afterwards is encrypted with a new key.

    Args:
        conn: The owner's, outside a transaction, in autocommit mode.
        workspace_id: Which workspace.
        by: Who does it, for the log.

    Raises:
        NotFoundError: There is no such workspace.
    """
    values: dict[str, Any] = {"id": workspace_id, "by": by}
    with conn.transaction():
        conn.execute("SET LOCAL taximeter.erasing = 'on'")
        # The row's lock: a batch that is being booked with the old key comes before, every other one gets a new key.
        if conn.execute(_LOCK, values).fetchone() is None:
            raise NotFoundError(f"Workspace {workspace_id} is not known; there is nothing to erase.")
        conn.execute(_CORRECTIONS, values)
        erased = Erased(*(conn.execute(query, values).rowcount for query in (_KEYS, _NOT_ENCRYPTED, _QUARANTINE)))
        conn.execute(_LOG, {**values, **msgspec.structs.asdict(erased)})
        access.log_change(conn, workspace_id, by, FIELD, None, "erased")
    # What was overwritten must not linger in dead rows.
    conn.execute("VACUUM taximeter.workspace_keys, taximeter.quarantine, taximeter.quarantine_actions")
    if erased.usages:
        conn.execute("VACUUM taximeter.usage_payloads")
    return erased


class Rotated(msgspec.Struct):
    """How many data keys were wrapped anew, and how many could not: their master keys are not known here."""

    rewrapped: int = 0
    locked: int = 0


def rotate(conn: Connection[Any], masters: MasterKeys) -> Rotated:
    """Wrap every data key with the current master key. Payloads are not touched; may be stopped and run again.

    Raises:
        MasterKeyError: A wrapped key was changed in the database.
    """
    rotated = Rotated()
    after = ("", 0)
    while found := conn.execute(_WRAPPED, [masters.current, *after]).fetchall():
        with conn.transaction():
            for workspace_id, number, wrapped, master in found:
                if master not in masters:
                    rotated.locked += 1
                    continue
                data_key = masters.unwrap(workspace_id, wrapped, master)
                again = masters.wrap(workspace_id, data_key)
                done = conn.execute(_REWRAP, [again, masters.current, workspace_id, number, master])
                rotated.rewrapped += done.rowcount
        after = found[-1][:2]
    return rotated


def names(conn: Connection[Any]) -> dict[str, int]:
    """The master keys in use, by name, with the number of data keys that each wraps."""
    found = conn.execute(
        "SELECT master, count(*) FROM taximeter.workspace_keys WHERE wrapped IS NOT NULL GROUP BY master ORDER BY master"
    )
    return dict(found.fetchall())
