"""Bring a database's schema to this version, beside running workers. Migrations only go forward."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Any, Final

import psycopg
from alembic import command
from alembic.config import Config
from psycopg import errors
from sqlalchemy.exc import DBAPIError

from taximeter_db import locks, roles, schema
from taximeter_db.backoff import LOST_RACES
from taximeter_db.connect import MIGRATIONS, connection
from taximeter_db.errors import DatabaseUnavailableError, SchemaError

LOCKS_SECONDS_MAX: Final = 120
"""How long a migration is tried again while bookings or readers are in its way."""
_IN_THE_WAY: Final = (errors.LockNotAvailable, errors.DeadlockDetected, errors.SerializationFailure)

# Alembic keeps its environment in module globals: one migration at a time in a process. Other processes wait in the
# database.
_one_at_a_time = threading.Lock()


def config(url: str) -> Config:
    """Alembic configuration for the database at `url`; there is no ini file."""
    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    settings.attributes["database_url"] = url
    return settings


def head() -> str:
    """Newest revision that this version of Taximeter knows."""
    return schema.newest()


def current(url: str) -> str | None:
    """Revision of the database at `url`, or None where Taximeter was never installed."""
    with connection(url, profile=MIGRATIONS) as conn:
        return schema.of_database(conn)


def upgrade(url: str, revision: str = "head") -> roles.Rights:
    """Create or upgrade the schema, then give the roles their rights.

    Safe to call at every start, from several processes at once, and beside workers (docs/upgrades.md): a migration waits
    for a lock for a third of a second, rolls back and tries again, so that bookings go on in between.

    Returns:
        What was done about the roles; nothing on the way to an older revision.

    Raises:
        DatabaseUnavailableError: PostgreSQL cannot be reached, or a lock was not granted within two minutes.
        SchemaError: The schema is newer than this version.
    """
    try:
        with (
            _one_at_a_time,
            connection(url, profile=MIGRATIONS) as conn,
            locks.hold(conn, locks.AdvisoryLock.MIGRATIONS),
        ):
            _refuse_newer(conn)
            _upgrade_around_others(url, revision)
        if revision != "head":
            return roles.Rights()
        with connection(url, profile=MIGRATIONS) as conn:
            return roles.apply(conn)
    except (DBAPIError, psycopg.Error) as error:
        cause = re.sub(r"\s+", " ", str(_driver_error(error))).strip()
        raise DatabaseUnavailableError(
            f"The schema could not be upgraded: {cause}. What was finished before stays; run `taximeter migrate` again."
        ) from error


def _upgrade_around_others(url: str, revision: str) -> None:
    """Each migration that finished stays finished: another try goes on from there."""
    gives_up_at = time.monotonic() + LOCKS_SECONDS_MAX
    attempt = 0
    while True:
        try:
            command.upgrade(config(url), revision)
        except (DBAPIError, psycopg.Error) as error:
            if not isinstance(_driver_error(error), _IN_THE_WAY) or time.monotonic() >= gives_up_at:
                raise
            time.sleep(LOST_RACES.seconds(attempt))
            attempt += 1
        else:
            return


def _driver_error(error: BaseException) -> BaseException | None:
    return error.orig if isinstance(error, DBAPIError) else error


def _refuse_newer(conn: psycopg.Connection[Any]) -> None:
    version = schema.of_database(conn)
    if version is not None and version > schema.newest():
        raise SchemaError(
            f"The database's schema is {version}, newer than this version of Taximeter, which knows {schema.newest()}."
            " Nothing was changed. Run `taximeter migrate` of the newer version."
        )


def require_current(url: str) -> None:
    """Refuse to work against another schema version.

    Raises:
        SchemaError: The database was never migrated, or is older or newer than this version.
        DatabaseUnavailableError: PostgreSQL cannot be reached.
    """
    version, wanted = current(url), head()
    if version == wanted:
        return
    if version is None:
        raise SchemaError("This database has no Taximeter schema yet. Run `taximeter migrate`.")
    raise SchemaError(f"The database's schema is {version}, this version needs {wanted}. Run `taximeter migrate`.")
