"""Who may look at a workspace, who looked, and who changed what: reading and writing."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import msgspec
from psycopg import Connection
from sqlalchemy import BindParameter, bindparam, delete, func, insert, select, text
from sqlalchemy.dialects.postgresql import insert as upsert

from taximeter_db.core import Statement
from taximeter_db.models.page import OperatorLook, UsedSignIn, WorkspaceChange, WorkspaceReader

MEMBER_MAX: Final = 255
READERS_MAX: Final = 1_000
_WORKSPACE: BindParameter[str] = bindparam("workspace_id")
_MEMBER: BindParameter[str] = bindparam("member")
_MAY_READ = Statement(
    select(WorkspaceReader.member).where(WorkspaceReader.workspace_id == _WORKSPACE, WorkspaceReader.member == _MEMBER)
)
_READERS = Statement(
    select(WorkspaceReader.member)
    .where(WorkspaceReader.workspace_id == _WORKSPACE)
    .order_by(WorkspaceReader.member)
    .limit(READERS_MAX)
)
_ALLOW = Statement(upsert(WorkspaceReader).values(workspace_id=_WORKSPACE, member=_MEMBER).on_conflict_do_nothing())
_DISALLOW = Statement(
    delete(WorkspaceReader).where(WorkspaceReader.workspace_id == _WORKSPACE, WorkspaceReader.member == _MEMBER)
)
_LOG_CHANGE = Statement(
    insert(WorkspaceChange).values(
        workspace_id=_WORKSPACE,
        changed_by=bindparam("changed_by"),
        field=bindparam("field"),
        value_before=bindparam("value_before"),
        value_after=bindparam("value_after"),
    )
)
_CHANGES = Statement(
    select(
        WorkspaceChange.changed_at,
        WorkspaceChange.changed_by,
        WorkspaceChange.field,
        WorkspaceChange.value_before,
        WorkspaceChange.value_after,
    )
    .where(WorkspaceChange.workspace_id == _WORKSPACE)
    .order_by(WorkspaceChange.id.desc())
    .limit(bindparam("limit"))
)
_LOG_LOOK = Statement(
    insert(OperatorLook).values(workspace_id=_WORKSPACE, operator=bindparam("operator"), path=bindparam("path"))
)
_FORGET_CODES = Statement(delete(UsedSignIn).where(UsedSignIn.expires_at < func.now() - text("interval '1 day'")))
_USE_CODE = Statement(
    upsert(UsedSignIn)
    .values(code=bindparam("code"), expires_at=bindparam("expires_at"))
    .on_conflict_do_nothing()
    .returning(UsedSignIn.code)
)
_USED = Statement(select(UsedSignIn.code).where(UsedSignIn.code == bindparam("code")))


class Change(msgspec.Struct, frozen=True):
    """A change of a workspace's settings."""

    changed_at: dt.datetime
    changed_by: str
    field: str
    value_before: str | None
    value_after: str | None


def may_read(conn: Connection[Any], workspace_id: str, member: str) -> bool:
    """Whether an owner allowed this member of the staff to look."""
    return _MAY_READ.first(conn, workspace_id=workspace_id, member=member) is not None


def readers(conn: Connection[Any], workspace_id: str) -> list[str]:
    """The members who may look, by name; the first 1,000."""
    return _READERS.scalars(conn, workspace_id=workspace_id)


def allow(conn: Connection[Any], workspace_id: str, member: str, by: str) -> bool:
    """Let a member look; False if they could already."""
    with conn.transaction():
        allowed = _ALLOW.run(conn, workspace_id=workspace_id, member=member) > 0
        if allowed:
            log_change(conn, workspace_id, by, "reader", None, member)
        return allowed


def disallow(conn: Connection[Any], workspace_id: str, member: str, by: str) -> bool:
    """Take the right to look away; False if they had none."""
    with conn.transaction():
        disallowed = _DISALLOW.run(conn, workspace_id=workspace_id, member=member) > 0
        if disallowed:
            log_change(conn, workspace_id, by, "reader", member, None)
        return disallowed


def log_change(
    conn: Connection[Any], workspace_id: str, by: str, field: str, before: str | None, after: str | None
) -> None:
    """Write a change down; call it in the transaction of the change."""
    _LOG_CHANGE.run(conn, workspace_id=workspace_id, changed_by=by, field=field, value_before=before, value_after=after)


def changes(conn: Connection[Any], workspace_id: str, limit: int = 50) -> list[Change]:
    """The newest changes of the workspace's settings."""
    return [Change(*row) for row in _CHANGES.all(conn, workspace_id=workspace_id, limit=limit)]


def log_look(conn: Connection[Any], workspace_id: str, operator: str, path: str) -> None:
    """Write down that an operator looks."""
    _LOG_LOOK.run(conn, workspace_id=workspace_id, operator=operator, path=path)


def use_code(conn: Connection[Any], code: str, expires_at: dt.datetime) -> bool:
    """Use up a one-time sign-in code; False if it was used before."""
    _FORGET_CODES.run(conn)
    return _USE_CODE.first(conn, code=code, expires_at=expires_at) is not None


def is_used(conn: Connection[Any], code: str) -> bool:
    """Whether a one-time code was used, or a session ended."""
    return _USED.first(conn, code=code) is not None
