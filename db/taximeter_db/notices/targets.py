"""Targets: where notices go. A workspace's own stand in the log of changes of its settings."""

from __future__ import annotations

import base64
import datetime as dt
import secrets
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from psycopg import Connection
from sqlalchemy import BigInteger, BindParameter, bindparam, delete, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Integer, LargeBinary, Text

from taximeter_db import access
from taximeter_db.core import Statement
from taximeter_db.crypto.master_keys import MasterKeys
from taximeter_db.errors import NotFoundError, SettingsError
from taximeter_db.limits import is_workspace_id
from taximeter_db.models.base import Id
from taximeter_db.models.notices import NoticeTarget
from taximeter_db.notices import addresses, outbox, sealing

EVERY_WORKSPACE: Final = "*"
"""As the workspace of a target: it gets the notices of all."""
WEBHOOK: Final = "webhook"
APPRISE: Final = "apprise"
FIELD: Final = "notices"
"""Under this name targets stand in the log of changes of a workspace's settings."""
TARGETS_MAX: Final = 20
"""Of one workspace."""
QUIET_SECONDS_MAX: Final = 86_400
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 -- what every one begins with
"""By Standard Webhooks; the rest is base64."""
OVERLAP: Final = dt.timedelta(days=1)
"""For this long after a rotation notices are signed with both secrets."""
_SECRET_BYTES: Final = 32

_WORKSPACE: BindParameter[str] = bindparam("of_workspace", type_=Id)
_TARGET: BindParameter[int] = bindparam("of_target", type_=BigInteger)
_THIS = (NoticeTarget.workspace_id == _WORKSPACE, NoticeTarget.target_id == _TARGET)
_COLUMNS = (
    NoticeTarget.workspace_id,
    NoticeTarget.target_id,
    NoticeTarget.channel,
    NoticeTarget.shown,
    NoticeTarget.types,
    NoticeTarget.allow_private,
    NoticeTarget.quiet_seconds,
    NoticeTarget.created_at,
    NoticeTarget.created_by,
    NoticeTarget.disabled_at,
    NoticeTarget.disabled_why,
)
_INSERT = Statement(
    insert(NoticeTarget)
    .values(
        workspace_id=_WORKSPACE,
        channel=bindparam("channel", type_=Text),
        shown=bindparam("shown", type_=Text),
        address=bindparam("address", type_=LargeBinary),
        secret=bindparam("secret", type_=LargeBinary),
        master=bindparam("master", type_=Text),
        types=bindparam("types", type_=ARRAY(Text)),
        allow_private=bindparam("allow_private"),
        quiet_seconds=bindparam("quiet_seconds", type_=Integer),
        created_by=bindparam("by", type_=Text),
    )
    .returning(NoticeTarget.target_id)
)
_COUNT = Statement(select(func.count()).select_from(NoticeTarget).where(NoticeTarget.workspace_id == _WORKSPACE))
_ALL = Statement(select(*_COLUMNS).order_by(NoticeTarget.target_id))
_OF_WORKSPACE = Statement(
    select(*_COLUMNS).where(NoticeTarget.workspace_id == _WORKSPACE).order_by(NoticeTarget.target_id)
)
_FIND = Statement(select(*_COLUMNS).where(NoticeTarget.target_id == _TARGET))
_DELETE = Statement(delete(NoticeTarget).where(*_THIS))
_SECRETS = Statement(
    select(NoticeTarget.address, NoticeTarget.secret, NoticeTarget.master).where(*_THIS).with_for_update()
)
_ROTATE = Statement(
    update(NoticeTarget)
    .where(*_THIS)
    .values(
        address=bindparam("new_address", type_=LargeBinary),
        secret=bindparam("new_secret", type_=LargeBinary),
        secret_before=bindparam("old_secret", type_=LargeBinary),
        secret_before_until=func.clock_timestamp() + text(f"interval '{OVERLAP.days} day'"),
        master=bindparam("new_master", type_=Text),
    )
)
_ENABLE = Statement(
    update(NoticeTarget).where(*_THIS).values(disabled_at=None, disabled_why=None, failures=0, retry_at=None)
)


class NewTarget(msgspec.Struct, frozen=True, kw_only=True):
    """A target that somebody wants.

    Attributes:
        address: A webhook's URL, or one of Apprise's.
        workspace_id: Whose notices it gets; `EVERY_WORKSPACE`: everybody's.
        types: Of which types; empty: of all.
        allow_private: Whether it may be an address that is not public. For operators alone.
        any_service: Whether it may be any service of Apprise. For operators alone.
        quiet_seconds: For this long a state that was sent is not sent again; the last one always is. 0: each change is sent.
    """

    channel: str
    address: str
    workspace_id: str
    types: tuple[str, ...] = ()
    allow_private: bool = False
    any_service: bool = False
    quiet_seconds: int = 0


class Target(msgspec.Struct, frozen=True):
    """A target without what is secret of it. `shown` is what people may see of its address."""

    workspace_id: str
    target_id: int
    channel: str
    shown: str
    types: tuple[str, ...] | None
    allow_private: bool
    quiet_seconds: int
    created_at: dt.datetime
    created_by: str
    disabled_at: dt.datetime | None
    disabled_why: str | None


class Added(msgspec.Struct, frozen=True):
    """A target that was made. Its secret signs what a webhook gets, and is shown this once."""

    target_id: int
    secret: str | None


def add(conn: Connection[Any], new: NewTarget, masters: MasterKeys | None, by: str) -> Added:
    """Make a target.

    Raises:
        SettingsError: It cannot be one, or the workspace has too many.
    """
    shown = _check(new)
    secret = _new_secret() if new.channel == WEBHOOK else None
    with conn.transaction():
        if _COUNT.scalar(conn, of_workspace=new.workspace_id) >= TARGETS_MAX:
            raise SettingsError(f"There are {TARGETS_MAX} targets already. Remove one that is not used.")
        target_id: int = _INSERT.scalar(
            conn,
            of_workspace=new.workspace_id,
            channel=new.channel,
            shown=shown,
            address=sealing.seal(masters, new.workspace_id, new.address),
            secret=None if secret is None else sealing.seal(masters, new.workspace_id, secret),
            master=sealing.name_of(masters),
            types=sorted(set(new.types)) or None,
            allow_private=new.allow_private,
            quiet_seconds=new.quiet_seconds,
            by=by,
        )
        access.log_change(conn, new.workspace_id, by, FIELD, None, f"{target_id}: {shown}")
    return Added(target_id, secret)


def listed(conn: Connection[Any], workspace_id: str | None = None) -> list[Target]:
    """The targets of a workspace, or all of them for the database's owner; the oldest first."""
    rows = _ALL.all(conn) if workspace_id is None else _OF_WORKSPACE.all(conn, of_workspace=workspace_id)
    return [_target(row) for row in rows]


def get(conn: Connection[Any], target_id: int, workspace_id: str | None = None) -> Target:
    """One target; of this workspace, where one is given.

    Raises:
        NotFoundError: There is none.
    """
    for row in _FIND.all(conn, of_target=target_id):
        target = _target(row)
        if workspace_id in {None, target.workspace_id}:
            return target
    raise NotFoundError(f"There is no target {target_id} of notices; `taximeter notify list` shows those there are.")


def remove(conn: Connection[Any], target: Target, by: str) -> None:
    """Remove a target; what still waits for it is dropped."""
    with conn.transaction():
        if _DELETE.run(conn, of_workspace=target.workspace_id, of_target=target.target_id):
            access.log_change(conn, target.workspace_id, by, FIELD, f"{target.target_id}: {target.shown}", None)


def rotate(conn: Connection[Any], target: Target, masters: MasterKeys | None, by: str) -> str:
    """Give a webhook a new secret and return it. For a day notices are signed with the one before, too.

    Raises:
        SettingsError: It is not a webhook.
        MasterKeyError: What it was stored with is not known here.
    """
    workspace_id = target.workspace_id
    secret = _new_secret()
    with conn.transaction():
        row = _SECRETS.first(conn, of_workspace=workspace_id, of_target=target.target_id)
        if row is None or row[1] is None:
            raise SettingsError("Only a webhook has a secret.")
        address, before = (sealing.reveal(masters, workspace_id, stored, row[2]) for stored in row[:2])
        _ROTATE.run(
            conn,
            of_workspace=workspace_id,
            of_target=target.target_id,
            new_address=sealing.seal(masters, workspace_id, address),
            new_secret=sealing.seal(masters, workspace_id, secret),
            old_secret=sealing.seal(masters, workspace_id, before),
            new_master=sealing.name_of(masters),
        )
        access.log_change(conn, workspace_id, by, FIELD, None, f"{target.target_id}: new secret")
    return secret


def enable(conn: Connection[Any], target: Target) -> None:
    """Let a target that was disabled have notices again."""
    _ENABLE.run(conn, of_workspace=target.workspace_id, of_target=target.target_id)


def _check(new: NewTarget) -> str:
    if new.workspace_id != EVERY_WORKSPACE and not is_workspace_id(new.workspace_id):
        raise SettingsError("A workspace's id has 1 to 128 characters of A-Z a-z 0-9 . _ : -")
    unknown = sorted(set(new.types) - set(outbox.TYPES))
    if unknown:
        raise SettingsError(
            f"There are no notices of the type {unknown[0][:40]!r}. The types are {', '.join(outbox.TYPES)}."
        )
    if not 0 <= new.quiet_seconds <= QUIET_SECONDS_MAX:
        raise SettingsError(f"The quiet time is from 0 to {QUIET_SECONDS_MAX} seconds.")
    if new.channel == WEBHOOK:
        return addresses.check_webhook(new.address, allow_private=new.allow_private)
    return addresses.check_apprise(new.address, any_service=new.any_service)


def _new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def _target(row: Sequence[Any]) -> Target:
    workspace_id, target_id, channel, shown, types, *rest = row
    return Target(workspace_id, target_id, channel, shown, None if types is None else tuple(types), *rest)
