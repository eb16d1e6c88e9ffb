"""The three roles with less than the owner's rights, and the rights that `sql/grants.sql` gives them.

The roles cannot log in. Whoever runs PostgreSQL makes a login for each part and a member of its role:
``CREATE ROLE worker LOGIN PASSWORD '…' BYPASSRLS IN ROLE taximeter_worker``.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import psycopg
from psycopg import Connection, sql

from taximeter_db.errors import DatabaseUnavailableError, SchemaError
from taximeter_db.sql import statement

WORKER: Final = "taximeter_worker"
DASHBOARD: Final = "taximeter_dashboard"
METRICS: Final = "taximeter_metrics"
ROLES: Final = (WORKER, DASHBOARD, METRICS)


class Rights(msgspec.Struct, frozen=True):
    """What was done about the roles.

    Attributes:
        created: roles that were made now.
        missing: roles that do not exist and that the connecting user may not make; nothing was granted.
    """

    created: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def advice(self) -> str | None:
        """What is left for an administrator to do, if anything."""
        if not self.missing:
            return None
        statements = " ".join(f"CREATE ROLE {role} NOLOGIN;" for role in self.missing)
        return (
            "The roles for worker, dashboard and metrics were not set up, because this database user may not create"
            f" roles. Until then every part must connect as the owner. As an administrator run: {statements}"
            " Then run `taximeter migrate` again. docs/security.md says more."
        )


def apply(conn: Connection[Any], lock: int) -> Rights:
    """Make the roles where they are missing and give them exactly the rights of `grants.sql`.

    Args:
        conn: The owner's; autocommit.
        lock: Number of the advisory lock that keeps migrators apart.
    """
    with conn.transaction():
        conn.execute("SELECT pg_advisory_xact_lock(%s)", [lock])
        found = {row[0] for row in conn.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", [list(ROLES)])}
        wanted = tuple(role for role in ROLES if role not in found)
        if wanted and not _may_create(conn):
            return Rights(missing=wanted)
        for role in wanted:
            try:
                with conn.transaction():
                    conn.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)))
            except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
                pass  # roles belong to the whole server, and another database's migration was faster
        database = sql.Identifier(conn.info.dbname)
        conn.execute(sql.SQL(statement("grants")).format(database=database))
    return Rights(created=wanted)


def _may_create(conn: Connection[Any]) -> bool:
    row = conn.execute("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user").fetchone()
    return bool(row and row[0])


def require_worker(conn: Connection[Any]) -> None:
    """Refuse a user whose bookings row-level security would stop.

    COPY, which booking uses, does not work under row-level security at all. The exemption is no added right: a worker
    books for every workspace.

    Raises:
        SchemaError: It is not exempt; the sentence says what an administrator must do.
    """
    try:
        row = conn.execute(
            "SELECT row_security_active(c.oid), current_user FROM pg_class AS c WHERE c.oid = to_regclass('taximeter.usages')"
        ).fetchone()
    except psycopg.OperationalError as error:
        raise DatabaseUnavailableError("PostgreSQL went away while a worker was connecting to it.") from error
    if row and row[0]:
        raise SchemaError(
            f"The database user {row[1]} cannot book: row-level security applies to it. As an administrator run:"
            f' ALTER ROLE "{row[1]}" BYPASSRLS;'
        )
