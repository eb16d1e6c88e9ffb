"""A migrated template once per server, and a cheap copy of it per test."""

from __future__ import annotations

import importlib.util
import secrets

import psycopg
from psycopg import sql

from taximeter_cli.embedded.postgres import ROLE, Postgres

_TEMPLATE = "taximeter_template"


def make_database(server: Postgres, template: str | None = None) -> str:
    """Create a database (a copy of ``template``) that belongs to the application's role; returns its name."""
    name = f"t_{secrets.token_hex(6)}"
    with psycopg.connect(server.admin_url(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(ROLE), sql.Identifier(template or "template0")
            )
        )
    return name


def drop_database(server: Postgres, name: str) -> None:
    with psycopg.connect(server.admin_url(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def migrated_template(server: Postgres) -> str | None:
    """Make the template on the first call; None if there are no migrations."""
    if importlib.util.find_spec("taximeter_db.migrate") is None:
        return None
    from taximeter_db.migrate import upgrade

    with psycopg.connect(server.admin_url(), autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [_TEMPLATE]).fetchone():
            return _TEMPLATE
        draft = make_database(server)
        upgrade(server.url(draft))
        connection.execute(
            sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(draft), sql.Identifier(_TEMPLATE))
        )
    return _TEMPLATE
