"""Wrapping all data keys, and all targets of notices, with another master key, and which master keys are in use. This is the owner's work."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from psycopg import Connection
from sqlalchemy import bindparam, func, select, tuple_, update

from taximeter_db.core import Statement
from taximeter_db.crypto.master_keys import MasterKeys
from taximeter_db.models.base import Id
from taximeter_db.models.keys import WorkspaceKey
from taximeter_db.notices import resealing

_WRAPPED = Statement(
    select(WorkspaceKey.workspace_id, WorkspaceKey.number, WorkspaceKey.wrapped, WorkspaceKey.master)
    .where(
        WorkspaceKey.wrapped.is_not(None),
        WorkspaceKey.master != bindparam("current"),
        tuple_(WorkspaceKey.workspace_id, WorkspaceKey.number)
        > tuple_(bindparam("after_id", type_=Id), bindparam("after_number", type_=WorkspaceKey.number.type)),
    )
    .order_by(WorkspaceKey.workspace_id, WorkspaceKey.number)
    .limit(1000)
)
_REWRAP = Statement(
    update(WorkspaceKey)
    .where(
        WorkspaceKey.workspace_id == bindparam("id", type_=Id),
        WorkspaceKey.number == bindparam("of_number"),
        WorkspaceKey.master == bindparam("old_master"),
        WorkspaceKey.wrapped.is_not(None),
    )
    .values(wrapped=bindparam("new_wrapped"), master=bindparam("new_master"))
)
_IN_USE = Statement(
    select(WorkspaceKey.master, func.count())
    .where(WorkspaceKey.wrapped.is_not(None))
    .group_by(WorkspaceKey.master)
    .order_by(WorkspaceKey.master)
)


class Rotated(msgspec.Struct):
    """How many data keys and targets were encrypted again, and how many were not: their master keys are not known here."""

    rewrapped: int = 0
    locked: int = 0


def rotate(conn: Connection[Any], masters: MasterKeys) -> Rotated:
    """Wrap every data key, and encrypt every target of notices, with the current master key. Payloads are not touched; may be stopped and run again.

    Raises:
        MasterKeyError: A wrapped key was changed in the database.
    """
    rotated = Rotated()
    after = ("", 0)
    while rows := _WRAPPED.all(conn, current=masters.current, after_id=after[0], after_number=after[1]):
        with conn.transaction():
            for workspace_id, number, wrapped, master in rows:
                if master not in masters:
                    rotated.locked += 1
                    continue
                data_key = masters.unwrap(workspace_id, wrapped, master)
                rotated.rewrapped += _REWRAP.run(
                    conn,
                    new_wrapped=masters.wrap(workspace_id, data_key),
                    new_master=masters.current,
                    id=workspace_id,
                    of_number=number,
                    old_master=master,
                )
        after = rows[-1][:2]
    resealed, locked = resealing.reseal(conn, masters)
    rotated.rewrapped += resealed
    rotated.locked += locked
    return rotated


def names(conn: Connection[Any]) -> dict[str, int]:
    """The master keys in use, by name, with the number of data keys, and of targets of notices, that each protects."""
    return dict(Counter(dict(_IN_USE.all(conn))) + Counter(resealing.names(conn)))
