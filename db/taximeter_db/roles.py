"""The roles with less than the owner's rights, and the rights that `sql/grants.sql` and `sql/grants_gateway.sql` give them.

The roles cannot log in. Whoever runs PostgreSQL makes a login for each part and a member of its role:
``CREATE ROLE worker LOGIN PASSWORD '…' BYPASSRLS IN ROLE taximeter_worker``.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import psycopg
from psycopg import Connection, sql

from taximeter_db import locks
from taximeter_db.errors import DatabaseUnavailableError, SchemaError
from taximeter_db.sql import statement, statements

WORKER: Final = "taximeter_worker"
DASHBOARD: Final = "taximeter_dashboard"
METRICS: Final = "taximeter_metrics"
GATEWAY: Final = "taximeter_gateway"
_FIRST: Final = (WORKER, DASHBOARD, METRICS)
"""These came together: none of them gets its rights without the others."""
ROLES: Final = (*_FIRST, GATEWAY)
_SQL: Final = statements("roles")


class Rights(msgspec.Struct, frozen=True):
    """What was done about the roles.

    Attributes:
        created: roles that were made now.
        missing: roles that do not exist and that the connecting user may not make; nothing was granted to them.
    """

    created: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def advice(self) -> str | None:
        """What is left for an administrator to do, if anything."""
        if not self.missing:
            return None
        create = _SQL["create"].strip().splitlines()[-1]
        commands = " ".join(f"{create.format(role=role)};" for role in self.missing)
        names = ", ".join(role.removeprefix("taximeter_") for role in self.missing)
        return (
            f"The roles for {names} were not set up, because this database user may not create"
            f" roles. Until then these parts must connect as the owner. As an administrator run: {commands}"
            " Then run `taximeter migrate` again. docs/security.md says more."
        )


def apply(conn: Connection[Any]) -> Rights:
    """Make the roles where they are missing and give them exactly the rights of `grants.sql`.

    Args:
        conn: The owner's; autocommit.
    """
    with conn.transaction():
        locks.hold_until_commit(conn, locks.AdvisoryLock.MIGRATIONS)
        present = existing(conn)
        wanted = tuple(role for role in ROLES if role not in present)
        missing = wanted if wanted and not _may_create(conn) else ()
        if not set(missing).isdisjoint(_FIRST):
            return Rights(missing=missing)
        wanted = tuple(role for role in wanted if role not in missing)
        for role in wanted:
            try:
                with conn.transaction():
                    create(conn, role)
            except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
                pass  # roles belong to the whole server, and another database's migration was faster
        database = sql.Identifier(conn.info.dbname)
        conn.execute(sql.SQL(statement("grants")).format(database=database))
        if GATEWAY not in missing:
            conn.execute(sql.SQL(statement("grants_gateway")).format(database=database))
    return Rights(created=wanted, missing=missing)


def existing(conn: Connection[Any]) -> set[str]:
    """The names of all roles of the server."""
    return {str(row[0]) for row in conn.execute(_SQL["existing"])}


def create(conn: Connection[Any], role: str) -> None:
    """Create a role that cannot log in."""
    conn.execute(sql.SQL(_SQL["create"]).format(role=sql.Identifier(role)))


def _may_create(conn: Connection[Any]) -> bool:
    row = conn.execute(_SQL["may_create"]).fetchone()
    return bool(row and row[0])


def require_worker(conn: Connection[Any]) -> None:
    """Refuse a user whose bookings row-level security would stop.

    COPY, which booking uses, does not work under row-level security at all. The exemption adds no right: a worker
    books for every workspace.

    Raises:
        SchemaError: It is not exempt; the sentence says what an administrator must do.
    """
    try:
        row = conn.execute(_SQL["row_security"]).fetchone()
    except psycopg.OperationalError as error:
        raise DatabaseUnavailableError("PostgreSQL went away while a worker was connecting to it.") from error
    if row and row[0]:
        raise SchemaError(
            f"The database user {row[1]} cannot book: row-level security applies to it. As an administrator run:"
            f' ALTER ROLE "{row[1]}" BYPASSRLS;'
        )
