"""Which master key a ledger's payloads are encrypted under: all workers must know it.

Two workers that do not know each other's master keys would make new data keys batch after batch, and each would book what
the other, and the page, cannot read. So the first one registers the name of its current key, and others are checked.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg import Connection
from sqlalchemy import Text, bindparam, select, update

from taximeter_db.core import Statement
from taximeter_db.crypto.master_keys import FILE_VARIABLE, VARIABLE, MasterKeys
from taximeter_db.errors import MasterKeyError, NotFoundError
from taximeter_db.models.flags import LedgerState

_REGISTERED = Statement(select(LedgerState.master_key))
_REGISTER: Final = Statement(
    update(LedgerState)
    .where(LedgerState.master_key.is_not_distinct_from(bindparam("old", type_=Text)))
    .values(master_key=bindparam("new", type_=Text))
)


def check_in(conn: Connection[Any], masters: MasterKeys | None) -> None:
    """Make sure that this process knows the registered master key, and register its current one in its place.

    Raises:
        MasterKeyError: It does not know it; the names of the keys are in the sentence.
    """
    while True:
        try:
            registered = _REGISTERED.scalar(conn)
        except psycopg.errors.UndefinedColumn:  # a schema before 0018
            return
        if registered is not None and (masters is None or registered not in masters):
            raise MasterKeyError(_refusal(registered, masters))
        if masters is None or registered == masters.current or _REGISTER.run(conn, old=registered, new=masters.current):
            return


def _refusal(registered: str, masters: MasterKeys | None) -> str:
    given = "none is given here" if masters is None else f"here only {', '.join(masters.names)} is given"
    return (
        f"Inputs and outputs of this ledger are encrypted under the master key {registered}, and {given}. Add it to {VARIABLE} or "
        f"to the file of {FILE_VARIABLE}, behind a new one if there is one. If it is lost, `taximeter keys abandon "
        f"{registered}` lets work go on without it; what was encrypted under it stays unreadable."
    )


def registered(conn: Connection[Any]) -> str | None:
    """Name of the master key that all workers must know."""
    name: str | None = _REGISTERED.scalar(conn)
    return name


def abandon(conn: Connection[Any], name: str) -> None:
    """Let workers start without this master key, because it is lost or no longer wanted.

    Raises:
        NotFoundError: It is not the registered one.
    """
    if not _REGISTER.run(conn, old=name, new=None):
        raise NotFoundError(f"{name} is not the master key that workers must know. `taximeter keys list` names it.")
