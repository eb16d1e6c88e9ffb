"""Destroying what events said: of a whole workspace, or of one quarantined event. This is the owner's work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from psycopg import Connection
from sqlalchemy import bindparam, insert

from taximeter_db import access, quarantine
from taximeter_db.core import Statement
from taximeter_db.errors import NotFoundError
from taximeter_db.models.keys import PayloadErasure
from taximeter_db.sql import statements

FIELD: Final = "contents"
"""Under this name an erasure stands in the log of changes of the workspace's settings."""
PAYLOADS_AT_ONCE = 2_000
ENTRIES_AT_ONCE = 200

_SQL = statements("erasure")
_LOG = Statement(
    insert(PayloadErasure).values(
        workspace_id=bindparam("id"),
        erased_by=bindparam("by"),
        keys=bindparam("keys"),
        usages=bindparam("usages"),
        quarantined=bindparam("quarantined"),
    )
)


class Erased(msgspec.Struct, frozen=True):
    """What was erased: data keys, contents of usages that were not encrypted, and quarantined events."""

    keys: int = 0
    usages: int = 0
    quarantined: int = 0


def erase(conn: Connection[Any], workspace_id: str, *, by: str) -> Erased:
    """Make the contents of all of a workspace's events so far unreadable for ever; what they cost stays.

    The data keys are destroyed first, in a transaction of their own, so that the workspace's balance is locked for a
    moment only. Then what was never encrypted is overwritten, and quarantined events are emptied and, if open,
    dismissed, a chunk a transaction: run it again if it was interrupted. What is booked meanwhile stays, and is encrypted
    with a new key.

    Args:
        conn: The owner's, outside a transaction, in autocommit mode.
        workspace_id: Which workspace.
        by: Who does it, for the log.

    Raises:
        NotFoundError: There is no such workspace.
    """
    whose = {"id": workspace_id}
    with conn.transaction():
        last = conn.execute(_SQL["begin"], whose).fetchone()
        if last is None:
            raise NotFoundError(f"Workspace {workspace_id} is not known; there is nothing to erase.")
        keys = conn.execute(_SQL["keys"], whose).rowcount
        _LOG.run(conn, id=workspace_id, by=by, keys=keys, usages=0, quarantined=0)
        access.log_change(conn, workspace_id, by, FIELD, None, "erased")
    last_seq, last_entry = last
    usages = _overwrite_payloads(conn, workspace_id, last_seq)
    quarantined = _empty_quarantine(conn, workspace_id, last_entry, by)
    if usages or quarantined:
        _LOG.run(conn, id=workspace_id, by=by, keys=0, usages=usages, quarantined=quarantined)
    conn.execute(_SQL["vacuum_small"])
    if usages:
        conn.execute(_SQL["vacuum_payloads"])
    return Erased(keys, usages, quarantined)


def _overwrite_payloads(conn: Connection[Any], workspace_id: str, last_seq: int) -> int:
    overwritten = 0
    for after in range(0, last_seq, PAYLOADS_AT_ONCE):
        with conn.transaction():
            conn.execute(_SQL["say_so"])
            values = {"id": workspace_id, "after": after, "upto": min(after + PAYLOADS_AT_ONCE, last_seq)}
            overwritten += conn.execute(_SQL["payloads"], values).rowcount
    return overwritten


def _empty_quarantine(conn: Connection[Any], workspace_id: str, last_entry: int, by: str) -> int:
    emptied, after = 0, 0
    while True:
        values = {"id": workspace_id, "after": after, "upto": last_entry, "limit": ENTRIES_AT_ONCE}
        ids = [row[0] for row in conn.execute(_SQL["entries"], values)]
        if not ids:
            return emptied
        with conn.transaction():
            emptied += _empty(conn, ids, by)
        after = ids[-1]


def _empty(conn: Connection[Any], ids: Sequence[int], by: str) -> int:
    """Empty quarantined events and their corrections, in the current transaction; returns how many events were not empty."""
    values = {"ids": list(ids), "by": by}
    conn.execute(_SQL["say_so"])
    conn.execute(_SQL["corrections"], values)
    return conn.execute(_SQL["quarantine"], values).rowcount


def erase_entry(conn: Connection[Any], entry_id: int, *, by: str) -> bool:
    """Empty one quarantined event, whatever workspace it names or none, and dismiss it if it is open.

    Its digest, reason and detail stay. Returns whether there was anything left to erase.

    Args:
        conn: The owner's, outside a transaction, in autocommit mode.
        entry_id: Which entry.
        by: Who does it, for the log.

    Raises:
        NotFoundError: There is no such entry.
    """
    quarantine.get(conn, entry_id)
    with conn.transaction():
        erased = _empty(conn, [entry_id], by)
        if erased:
            quarantine.log_erasure(conn, entry_id, by=by)
    conn.execute(_SQL["vacuum_small"])
    return bool(erased)
