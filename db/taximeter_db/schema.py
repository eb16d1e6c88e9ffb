"""Which schema this version of the code works on, and which versions of the code work on a schema.

A schema's version is the number of its newest migration. Expand, migrate, contract (docs/upgrades.md): a migration keeps
what the release before it uses, so `taximeter migrate` runs first and the workers are replaced one by one after it.
"""

from __future__ import annotations

import functools
import re
from importlib.resources import files
from typing import Any, Final

import psycopg
from psycopg import Connection

from taximeter_db.errors import SchemaError
from taximeter_db.sql import statements

OLDEST_SUPPORTED: Final = "0028"
"""The oldest schema that this code works on: `tests/db/test_upgrades.py` books, pays and reads on it."""
_SQL = statements("schema_version")
_MIGRATION = re.compile(r"(\d{4})_\w+\.py")


@functools.cache
def newest() -> str:
    """The newest schema that this version knows."""
    found = [_MIGRATION.fullmatch(entry.name) for entry in files("taximeter_db.migrations.versions").iterdir()]
    numbers = [match[1] for match in found if match]
    if not numbers:  # pragma: no cover - the package always ships its migrations
        raise SchemaError("No migrations were found in this installation. Reinstall taximeter.")
    return max(numbers)


def of_database(conn: Connection[Any]) -> str | None:
    """The version of the database's schema, or None where Taximeter was never installed."""
    try:
        row = conn.execute(_SQL["version"]).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return None
    return str(row[0]) if row else None


def require_supported(conn: Connection[Any]) -> None:
    """Refuse to work on a schema that this version does not fit. Outside of a transaction.

    Raises:
        SchemaError: The database was never migrated, is too old for this version, or was upgraded by one that this
            version is too old for.
    """
    try:
        version = of_database(conn)
    except psycopg.errors.InsufficientPrivilege:
        return  # a login without rights on the tables sees none that could have changed
    if version is None:
        raise SchemaError("This database has no Taximeter schema yet. Run `taximeter migrate`.")
    if version < OLDEST_SUPPORTED:
        raise SchemaError(
            f"The database's schema is {version}, this version needs {OLDEST_SUPPORTED} at least. Run `taximeter migrate`."
        )
    if version > newest() and (oldest := _oldest_code(conn)) > newest():
        raise SchemaError(
            f"The database's schema is {version}, which needs a version of Taximeter that knows {oldest}; this one knows"
            f" {newest()}. Upgrade Taximeter here. Nothing is lost meanwhile: what is published waits."
        )


def require_same(conn: Connection[Any]) -> None:
    """Refuse to judge a refusal of the database on any other schema than the newest that this version knows.

    Raises:
        SchemaError: It is another one: the refusal may be nobody's fault but the upgrade's.
    """
    version = of_database(conn)
    if version != newest():
        raise SchemaError(
            f"PostgreSQL refuses what this version writes. The database's schema is {version}, this version knows"
            f" {newest()}. "
            + ("Upgrade Taximeter here." if version and version > newest() else "Run `taximeter migrate`.")
            + " Nothing is lost meanwhile."
        )


def _oldest_code(conn: Connection[Any]) -> str:
    try:
        row = conn.execute(_SQL["oldest_code"]).fetchone()
    except psycopg.errors.UndefinedFunction:
        return ""
    return str(row[0]) if row else ""
