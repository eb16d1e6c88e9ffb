"""Bring a database's schema to this version. Migrations only go forward."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.exc import OperationalError

from taximeter_db import roles
from taximeter_db.connect import connection
from taximeter_db.errors import DatabaseUnavailableError, SchemaError

MIGRATION_LOCK = 7_480_312_907
"""Advisory lock. Any fixed number will do; it must only be the same for every migrator."""

# Alembic keeps its environment in module globals: one migration at a time in a process. Other processes wait in the
# database, on the advisory lock of migrations/env.py.
_one_at_a_time = threading.Lock()


def config(url: str) -> Config:
    """Alembic configuration for the database at `url`; there is no ini file."""
    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    settings.attributes["database_url"] = url
    return settings


def head() -> str:
    """Newest revision that this version of Taximeter knows."""
    revision = ScriptDirectory.from_config(config("")).get_current_head()
    if revision is None:  # pragma: no cover - the package always ships its migrations
        raise SchemaError("No migrations were found in this installation. Reinstall taximeter.")
    return revision


def current(url: str) -> str | None:
    """Revision of the database at `url`, or None where Taximeter was never installed."""
    with connection(url) as conn:
        try:
            row = conn.execute("SELECT version_num FROM taximeter.alembic_version").fetchone()
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            return None
    return str(row[0]) if row else None


def upgrade(url: str, revision: str = "head") -> roles.Rights:
    """Create or upgrade the schema, then give the roles their rights.

    Safe to call at every start and from several processes at once.

    Returns:
        What was done about the roles; nothing on the way to an older revision.

    Raises:
        DatabaseUnavailableError: PostgreSQL cannot be reached, or a lock was not to be had within 5 seconds.
    """
    try:
        with _one_at_a_time:
            command.upgrade(config(url), revision)
        if revision != "head":
            return roles.Rights()
        with connection(url) as conn:
            return roles.apply(conn, MIGRATION_LOCK)
    except OperationalError as error:
        cause = re.sub(r"\s+", " ", str(error.orig)).strip()
        raise DatabaseUnavailableError(f"The schema could not be upgraded: {cause}. Nothing was changed.") from error


def require_current(url: str) -> None:
    """Refuse to work against another schema version.

    Raises:
        SchemaError: The database was never migrated, or is older or newer than this version.
        DatabaseUnavailableError: PostgreSQL cannot be reached.
    """
    found, wanted = current(url), head()
    if found == wanted:
        return
    if found is None:
        raise SchemaError("This database has no Taximeter schema yet. Run `taximeter migrate`.")
    raise SchemaError(f"The database's schema is {found}, this version needs {wanted}. Run `taximeter migrate`.")
