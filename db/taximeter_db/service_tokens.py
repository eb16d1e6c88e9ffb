"""Service tokens: what programs use the JSON API with, instead of a person's token.

A token is 32 random bytes. Only its SHA-256 is stored, so that whoever reads the table or a backup cannot use it; there
is nothing to guess that a slower hash would protect. It is for named workspaces, or for every one, and revoking it deletes
its rows: the next request with it is refused. Making and revoking stand in the log of each workspace's changes.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import secrets
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from psycopg import Connection
from psycopg.errors import UniqueViolation
from sqlalchemy import BindParameter, bindparam, delete, func, insert, select

from taximeter_db import access
from taximeter_db.core import Statement
from taximeter_db.errors import NotFoundError, SettingsError
from taximeter_db.models.page import ServiceToken
from taximeter_db.sql import statement

PREFIX: Final = "txs_"
"""Tells a service token from others, and finds one that leaked."""
FIELD: Final = "token"
"""Under this name tokens stand in the log of changes of the workspace's settings."""
EVERY_WORKSPACE: Final = "*"
NAME_PATTERN: Final = r"[A-Za-z0-9._:-]{1,64}"
TOKENS_MAX: Final = 100
"""Of one workspace."""
_SECRET_BYTES: Final = 32

_WORKSPACE: BindParameter[str] = bindparam("of_workspace")
_COLUMNS = (
    ServiceToken.name,
    ServiceToken.workspace_id,
    ServiceToken.read_only,
    ServiceToken.created_at,
    ServiceToken.created_by,
    ServiceToken.token_hash,
)
_INSERT = Statement(
    insert(ServiceToken).values(
        workspace_id=_WORKSPACE,
        name=bindparam("named"),
        token_hash=bindparam("hash"),
        read_only=bindparam("reads"),
        created_by=bindparam("by"),
    )
)
_COUNT = Statement(select(func.count()).select_from(ServiceToken).where(ServiceToken.workspace_id == _WORKSPACE))
_OF_WORKSPACE = Statement(select(*_COLUMNS).where(ServiceToken.workspace_id == _WORKSPACE).order_by(ServiceToken.name))
_ALL = Statement(select(*_COLUMNS).order_by(ServiceToken.name, ServiceToken.token_hash, ServiceToken.workspace_id))
_NAMED = Statement(select(ServiceToken.token_hash).where(ServiceToken.name == bindparam("named")).distinct())
_HASH = Statement(
    select(ServiceToken.token_hash).where(
        ServiceToken.workspace_id == _WORKSPACE, ServiceToken.name == bindparam("named")
    )
)
_DELETE = Statement(
    delete(ServiceToken)
    .where(ServiceToken.token_hash == bindparam("hash"))
    .returning(ServiceToken.workspace_id, ServiceToken.name)
)
_DELETE_ONE = Statement(
    delete(ServiceToken)
    .where(ServiceToken.workspace_id == _WORKSPACE, ServiceToken.name == bindparam("named"))
    .returning(ServiceToken.workspace_id, ServiceToken.name)
)
_FIND = statement("find_service_token")


class Token(msgspec.Struct, frozen=True):
    """A token, without its secret. `workspaces` is None where it is for every workspace."""

    name: str
    workspaces: tuple[str, ...] | None
    read_only: bool
    created_at: dt.datetime
    created_by: str


class Known(msgspec.Struct, frozen=True):
    """What a token that somebody presented is for."""

    name: str
    workspaces: tuple[str, ...] | None
    read_only: bool


def make(conn: Connection[Any], name: str, *, workspaces: Sequence[str], read_only: bool, by: str) -> str:
    """Make a token for these workspaces, none named: for every one. Returns it; it cannot be shown again.

    Raises:
        SettingsError: The name is malformed or taken in one of the workspaces, or one has too many tokens.
    """
    if not _is_name(name):
        raise SettingsError("A token's name has 1 to 64 characters of A-Z a-z 0-9 . _ : -")
    token = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    try:
        with conn.transaction():
            for workspace_id in sorted(set(workspaces)) or [EVERY_WORKSPACE]:
                if _COUNT.scalar(conn, of_workspace=workspace_id) >= TOKENS_MAX:
                    raise SettingsError(f"There are {TOKENS_MAX} tokens already. Revoke one that is not used.")
                _INSERT.run(conn, of_workspace=workspace_id, named=name, hash=_hashed(token), reads=read_only, by=by)
                access.log_change(conn, workspace_id, by, FIELD, None, name)
    except UniqueViolation as error:
        raise SettingsError(f"There is a token {name} already. Choose another name, or revoke that one.") from error
    return token


def find(conn: Connection[Any], token: str) -> Known | None:
    """What a token is for; None where it is not one, or was revoked."""
    rows = conn.execute(_FIND, {"hash": _hashed(token)}).fetchall() if token.startswith(PREFIX) else []
    if not rows:
        return None
    workspaces = tuple(row[0] for row in rows)
    return Known(rows[0][1], None if EVERY_WORKSPACE in workspaces else workspaces, rows[0][2])


def of_workspace(conn: Connection[Any], workspace_id: str) -> list[Token]:
    """The tokens that name a workspace, by name. Those for every workspace are not among them."""
    return _grouped(_OF_WORKSPACE.all(conn, of_workspace=workspace_id))


def all_tokens(conn: Connection[Any]) -> list[Token]:
    """Every token, by name. For the owner of the database."""
    return _grouped(_ALL.all(conn))


def revoke(conn: Connection[Any], name: str, *, by: str, workspace_id: str | None = None) -> int:
    """Revoke the token of this name, and of this workspace where one is named; returns from how many workspaces it went.

    For the owner of the database: a token for several workspaces is revoked in all of them.

    Raises:
        NotFoundError: There is no such token.
        SettingsError: Several tokens have this name, in different workspaces.
    """
    if not _is_name(name):
        raise NotFoundError("There is no token of that name.")
    with conn.transaction():
        if workspace_id is None:
            hashes = _NAMED.scalars(conn, named=name)
        else:
            hashes = _HASH.scalars(conn, of_workspace=workspace_id, named=name)
        if not hashes:
            raise NotFoundError(f"There is no token {name}.")
        if len(hashes) > 1:
            raise SettingsError(f"Several tokens are named {name}: say of which workspace.")
        return _log(conn, _DELETE.all(conn, hash=hashes[0]), by)


def take_away(conn: Connection[Any], workspace_id: str, name: str, *, by: str) -> bool:
    """Let a token into this workspace no more; False if there was none. For the workspace's owner."""
    if not _is_name(name):
        return False
    with conn.transaction():
        return _log(conn, _DELETE_ONE.all(conn, of_workspace=workspace_id, named=name), by) > 0


def _is_name(name: str) -> bool:
    return re.fullmatch(NAME_PATTERN, name, re.ASCII) is not None


def _log(conn: Connection[Any], deleted: Sequence[tuple[Any, ...]], by: str) -> int:
    for workspace_id, name in deleted:
        access.log_change(conn, workspace_id, by, FIELD, name, None)
    return len(deleted)


def _grouped(rows: Sequence[tuple[Any, ...]]) -> list[Token]:
    tokens: dict[bytes, Token] = {}
    for name, workspace_id, read_only, created_at, created_by, hashed in rows:
        known = tokens.get(hashed)
        named = () if known is None else known.workspaces or ()
        workspaces = None if workspace_id == EVERY_WORKSPACE else (*named, workspace_id)
        tokens[hashed] = Token(name, workspaces, read_only, created_at, created_by)
    return list(tokens.values())


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
