"""The database users of an embedded instance, and their passwords.

Each password is derived from the one above it: the superuser's (a random file) gives the owner's, the owner's gives
those of the parts. So no more secrets are kept, whoever holds the owner's address can also be a part, and a part can be
nobody else.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from psycopg import Connection, sql

from taximeter_db import roles
from taximeter_db.sql import statements

SUPERUSER: Final = "postgres"
OWNER: Final = "taximeter"
"""Owner of the database; no superuser, as in production."""
WORKER: Final = "worker"
DASHBOARD: Final = "dashboard"
METRICS: Final = "metrics"
GATEWAY: Final = "gateway"
PARTS: Final = {
    WORKER: roles.WORKER,
    DASHBOARD: roles.DASHBOARD,
    METRICS: roles.METRICS,
    GATEWAY: roles.GATEWAY,
}
"""Login of each part and the role whose rights it has."""
_SQL: Final = statements("roles")


def password_below(above: str, login: str) -> str:
    """The password of a login, derived from the password above it."""
    digest = hmac.digest(above.encode(), f"PostgreSQL login {login}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest[:24]).decode()


def part_url(owner_url: str, login: str) -> str:
    """The owner's address turned into that of a part."""
    parts = urlsplit(owner_url)
    password = password_below(unquote(parts.password or ""), login)
    place = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{login}:{quote(password)}@{place}").geturl()


def ensure(connection: Connection[tuple[object, ...]], database: str, superuser_password: str) -> None:
    """Make the roles, the logins and the owner's database where they are missing; set the logins' passwords.

    Args:
        connection: The superuser's; autocommit.
        database: Name of the owner's database.
        superuser_password: What the logins' passwords are derived from.
    """
    present = roles.existing(connection)
    for role in roles.ROLES:
        if role not in present:
            roles.create(connection, role)
    owner_password = password_below(superuser_password, OWNER)
    for login, password in [(OWNER, owner_password), *((part, password_below(owner_password, part)) for part in PARTS)]:
        verb = "alter_login" if login in present else "create_login"
        _execute(connection, verb, role=sql.Identifier(login), password=sql.Literal(password))
    # COPY does not work under row-level security, and the worker books for every workspace anyway.
    _execute(connection, "exempt", role=sql.Identifier(WORKER))
    for login, role in PARTS.items():
        _execute(connection, "add_member", role=sql.Identifier(role), member=sql.Identifier(login))
    named = sql.Identifier(database)
    if not connection.execute(_SQL["has_database"], {"database": database}).fetchone():
        _execute(connection, "create_database", database=named, owner=sql.Identifier(OWNER))
    _execute(connection, "close_database", database=named)


def _execute(connection: Connection[tuple[object, ...]], name: str, **parts: sql.Composable) -> None:
    connection.execute(sql.SQL(_SQL[name]).format(**parts))
