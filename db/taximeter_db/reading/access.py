"""Who may look at a workspace, who looked, and who changed what."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
from psycopg import Connection

MEMBER_MAX = 255
_CHANGES = """
SELECT changed_at, changed_by, field, value_before, value_after FROM taximeter.workspace_changes
WHERE workspace_id = %s ORDER BY id DESC LIMIT %s
"""
_CHANGE = """
INSERT INTO taximeter.workspace_changes (workspace_id, changed_by, field, value_before, value_after)
VALUES (%s, %s, %s, %s, %s)
"""
_USE_CODE = """
INSERT INTO taximeter.used_sign_ins (code, expires_at) VALUES (%s, %s) ON CONFLICT DO NOTHING RETURNING code
"""


class Change(msgspec.Struct, frozen=True):
    """A change of a workspace's settings."""

    changed_at: dt.datetime
    changed_by: str
    field: str
    value_before: str | None
    value_after: str | None


def may_read(conn: Connection[Any], workspace_id: str, member: str) -> bool:
    """Whether an owner allowed this member of the staff to look."""
    found = conn.execute(
        "SELECT 1 FROM taximeter.workspace_readers WHERE workspace_id = %s AND member = %s", [workspace_id, member]
    )
    return found.fetchone() is not None


def readers(conn: Connection[Any], workspace_id: str) -> list[str]:
    """The members who may look, by name; the first 1,000."""
    found = conn.execute(
        "SELECT member FROM taximeter.workspace_readers WHERE workspace_id = %s ORDER BY member LIMIT 1000",
        [workspace_id],
    )
    return [row[0] for row in found]


def allow(conn: Connection[Any], workspace_id: str, member: str, by: str) -> bool:
    """Let a member look; False if they could already."""
    with conn.transaction():
        done = conn.execute(
            "INSERT INTO taximeter.workspace_readers (workspace_id, member) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            [workspace_id, member],
        )
        if done.rowcount:
            log_change(conn, workspace_id, by, "reader", None, member)
        return bool(done.rowcount)


def disallow(conn: Connection[Any], workspace_id: str, member: str, by: str) -> bool:
    """Take the right to look away; False if they had none."""
    with conn.transaction():
        done = conn.execute(
            "DELETE FROM taximeter.workspace_readers WHERE workspace_id = %s AND member = %s", [workspace_id, member]
        )
        if done.rowcount:
            log_change(conn, workspace_id, by, "reader", member, None)
        return bool(done.rowcount)


def log_change(
    conn: Connection[Any], workspace_id: str, by: str, field: str, before: str | None, after: str | None
) -> None:
    """Write a change down; call it in the transaction of the change."""
    conn.execute(_CHANGE, [workspace_id, by, field, before, after])


def changes(conn: Connection[Any], workspace_id: str, limit: int = 50) -> list[Change]:
    """The newest changes of the workspace's settings."""
    return [Change(*row) for row in conn.execute(_CHANGES, [workspace_id, limit])]


def log_look(conn: Connection[Any], workspace_id: str, operator: str, path: str) -> None:
    """Write down that an operator looks."""
    conn.execute(
        "INSERT INTO taximeter.operator_looks (workspace_id, operator, path) VALUES (%s, %s, %s)",
        [workspace_id, operator, path],
    )


def use_code(conn: Connection[Any], code: str, expires_at: dt.datetime) -> bool:
    """Use up a one-time sign-in code; False if it was used before."""
    conn.execute("DELETE FROM taximeter.used_sign_ins WHERE expires_at < now() - interval '1 day'")
    return conn.execute(_USE_CODE, [code, expires_at]).fetchone() is not None


def is_used(conn: Connection[Any], code: str) -> bool:
    """Whether a one-time code was used, or a session ended."""
    return conn.execute("SELECT 1 FROM taximeter.used_sign_ins WHERE code = %s", [code]).fetchone() is not None
