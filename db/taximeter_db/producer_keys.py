"""The keys of those who publish through the HTTP gateway: making, listing and revoking them, and telling who holds one.

A key is 32 random bytes as text. The table keeps its SHA-256 alone: nothing that is read there is a key, and a secret of
that length needs no slow hash.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
from typing import Any, Final

import msgspec
from psycopg import Connection, errors
from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from taximeter_db.core import Statement
from taximeter_db.errors import NotFoundError, SettingsError
from taximeter_db.limits import is_workspace_id
from taximeter_db.models.base import Id
from taximeter_db.models.producers import ProducerKey

PREFIX: Final = "tmk_"
"""What every key begins with, so that a scanner for leaked secrets knows one."""
USAGE: Final = "usage"
PAYMENT: Final = "payment"
NAME_MAX: Final = 128
TOOL_MAX: Final = 128
EVENTS_PER_SECOND_MAX: Final = 1_000_000
_SECRET_BYTES: Final = 32

_COLUMNS: Final = (
    ProducerKey.name,
    ProducerKey.workspaces,
    ProducerKey.tools,
    ProducerKey.kinds,
    ProducerKey.events_per_second,
    ProducerKey.created_at,
    ProducerKey.created_by,
    ProducerKey.revoked_at,
)
_ADD = Statement(
    insert(ProducerKey).values(
        key_hash=bindparam("key_hash"),
        name=bindparam("name", type_=Id),
        workspaces=bindparam("workspaces", type_=ARRAY(Id)),
        tools=bindparam("tools", type_=ARRAY(Text)),
        kinds=bindparam("kinds", type_=ARRAY(Text)),
        events_per_second=bindparam("events_per_second"),
        created_by=bindparam("created_by"),
    )
)
_ALL = Statement(select(*_COLUMNS).order_by(ProducerKey.created_at, ProducerKey.name))
_REVOKE = Statement(
    update(ProducerKey)
    .where(ProducerKey.name == bindparam("named", type_=Id), ProducerKey.revoked_at.is_(None))
    .values(revoked_at=func.clock_timestamp())
)
_VALID = Statement(select(ProducerKey.key_hash, *_COLUMNS).where(ProducerKey.revoked_at.is_(None)))
# Neither number ever gets smaller, and every change makes one of them larger.
_VERSION = Statement(select(func.count(), func.count(ProducerKey.revoked_at)).select_from(ProducerKey))


class Producer(msgspec.Struct, frozen=True):
    """A key without its secret.

    Attributes:
        workspaces: The workspaces whose events it may publish; None: any.
        tools: The tools whose usage it may publish; None: any.
        kinds: ``usage``, ``payment`` or both.
        events_per_second: How many events it may publish in a second; None: any number.
    """

    name: str
    workspaces: tuple[str, ...] | None
    tools: tuple[str, ...] | None
    kinds: tuple[str, ...]
    events_per_second: int | None
    created_at: dt.datetime
    created_by: str
    revoked_at: dt.datetime | None


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What a new key may publish; the attributes are those of `Producer`."""

    workspaces: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    kinds: tuple[str, ...] = (USAGE,)
    events_per_second: int | None = None


def digest(key: str) -> bytes:
    """What the table keeps of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def create(conn: Connection[Any], name: str, scope: Scope, by: str) -> str:
    """Make a key and return it. It cannot be read again.

    Raises:
        SettingsError: The name is taken, or something cannot be what it is given as.
    """
    _check(name, scope)
    key = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    try:
        _ADD.run(
            conn,
            key_hash=digest(key),
            name=name,
            workspaces=sorted(set(scope.workspaces)) or None,
            tools=sorted(set(scope.tools)) or None,
            kinds=list(scope.kinds),
            events_per_second=scope.events_per_second,
            created_by=by,
        )
    except errors.UniqueViolation:
        raise SettingsError(
            f"There is a key named {name} already. Choose another name, or revoke that one first."
        ) from None
    return key


def listed(conn: Connection[Any]) -> list[Producer]:
    """All keys, the revoked ones too, the oldest first."""
    return [_producer(*row) for row in _ALL.all(conn)]


def revoke(conn: Connection[Any], name: str) -> None:
    """End a key. Gateways take it no more within a second.

    Raises:
        NotFoundError: No key has that name, or it is revoked.
    """
    if not _REVOKE.run(conn, named=name):
        raise NotFoundError(f"There is no key named {name}, or it is revoked already: `taximeter producers list`.")


def version(conn: Connection[Any]) -> tuple[int, int]:
    """Two numbers that are others once a key was made or revoked."""
    made, revoked = _VERSION.one(conn)
    return int(made), int(revoked)


def valid(conn: Connection[Any]) -> dict[bytes, Producer]:
    """The keys that count, by `digest`."""
    return {bytes(row[0]): _producer(*row[1:]) for row in _VALID.all(conn)}


def _producer(name: str, workspaces: Any, tools: Any, kinds: Any, *rest: Any) -> Producer:
    return Producer(
        name,
        None if workspaces is None else tuple(workspaces),
        None if tools is None else tuple(tools),
        tuple(kinds),
        *rest,
    )


def _check(name: str, scope: Scope) -> None:
    if not name.strip() or len(name) > NAME_MAX or not name.isprintable():
        raise SettingsError(f"A key's name has 1 to {NAME_MAX} printable characters.")
    for workspace_id in scope.workspaces:
        if not is_workspace_id(workspace_id):
            raise SettingsError("A workspace's id has 1 to 128 characters of A-Z a-z 0-9 . _ : -")
    for tool in scope.tools:
        if not tool.strip() or len(tool) > TOOL_MAX or "\0" in tool:
            raise SettingsError(f"A tool's name has 1 to {TOOL_MAX} characters.")
    if scope.events_per_second is not None and not 1 <= scope.events_per_second <= EVENTS_PER_SECOND_MAX:
        raise SettingsError(f"The events per second are from 1 to {EVENTS_PER_SECOND_MAX}.")
