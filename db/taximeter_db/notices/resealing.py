"""Encrypting addresses and secrets of targets again under another master key, as `taximeter keys rotate` does."""

from __future__ import annotations

from typing import Any

from psycopg import Connection
from sqlalchemy import BigInteger, bindparam, func, select, update
from sqlalchemy.types import LargeBinary, Text

from taximeter_db.core import Statement
from taximeter_db.crypto.master_keys import MasterKeys
from taximeter_db.models.base import Id
from taximeter_db.models.notices import NoticeTarget
from taximeter_db.notices import sealing

_OTHERS = Statement(
    select(
        NoticeTarget.workspace_id,
        NoticeTarget.target_id,
        NoticeTarget.master,
        NoticeTarget.address,
        NoticeTarget.secret,
        NoticeTarget.secret_before,
    )
    .where(NoticeTarget.master.is_not(None), NoticeTarget.master != bindparam("current", type_=Text))
    .with_for_update()
)
_RESEAL = Statement(
    update(NoticeTarget)
    .where(
        NoticeTarget.workspace_id == bindparam("of_workspace", type_=Id),
        NoticeTarget.target_id == bindparam("of_target", type_=BigInteger),
    )
    .values(
        master=bindparam("new_master", type_=Text),
        address=bindparam("new_address", type_=LargeBinary),
        secret=bindparam("new_secret", type_=LargeBinary),
        secret_before=bindparam("new_secret_before", type_=LargeBinary),
    )
)
_IN_USE = Statement(
    select(NoticeTarget.master, func.count()).where(NoticeTarget.master.is_not(None)).group_by(NoticeTarget.master)
)


def reseal(conn: Connection[Any], masters: MasterKeys) -> tuple[int, int]:
    """Encrypt the targets with the current master key. Returns how many, and how many need a key that is not known here.

    Raises:
        MasterKeyError: Something was changed in the database.
    """
    done = locked = 0
    with conn.transaction():
        for workspace_id, target_id, master, *stored in _OTHERS.all(conn, current=masters.current):
            if master not in masters:
                locked += 1
                continue
            address, secret, before = (
                None
                if value is None
                else sealing.seal(masters, workspace_id, sealing.reveal(masters, workspace_id, value, master))
                for value in stored
            )
            done += _RESEAL.run(
                conn,
                of_workspace=workspace_id,
                of_target=target_id,
                new_master=masters.current,
                new_address=address,
                new_secret=secret,
                new_secret_before=before,
            )
    return done, locked


def names(conn: Connection[Any]) -> dict[str, int]:
    """The master keys that targets are encrypted with, by name, with the number of targets."""
    return dict(_IN_USE.all(conn))
