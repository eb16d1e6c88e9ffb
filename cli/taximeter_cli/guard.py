"""How errors reach a person: one sentence on stderr, never a traceback unless it is asked for."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Final

from taximeter_cli.console import clean, note
from taximeter_cli.errors import UsageError

_SCHEMA = "the database does not have the schema of this version ({error}): run `taximeter migrate`."
_SENTENCES: Final[dict[tuple[str, str], str]] = {
    ("taximeter_cli.errors", "CliError"): "{error}",
    ("taximeter.errors", "TaximeterError"): "{error}",
    ("taximeter_db.errors", "TaximeterDbError"): "{error}",
    ("taximeter_worker.errors", "TaximeterWorkerError"): "{error}",
    ("taximeter_gateway.errors", "GatewayError"): "{error}",
    (
        "psycopg.errors",
        "InsufficientPrivilege",
    ): "the database's user may not do this ({error}). Use the address of a user"
    " with the rights, such as the database's owner: docs/security.md.",
    ("psycopg.errors", "UndefinedTable"): _SCHEMA,
    ("psycopg.errors", "UndefinedColumn"): _SCHEMA,
    ("psycopg.errors", "UndefinedFunction"): _SCHEMA,
    ("psycopg.errors", "InvalidSchemaName"): _SCHEMA,
    ("psycopg.errors", "LockNotAvailable"): "PostgreSQL did not get a lock in time ({error}): something else holds it."
    " Nothing was changed; try again.",
    ("psycopg", "OperationalError"): "PostgreSQL failed: {error}. Check that it runs, then try again.",
    ("psycopg", "Error"): "PostgreSQL refused a statement: {error}. `taximeter verify` tells whether the ledger agrees;"
    " `taximeter --debug …` shows where it happened.",
    ("sqlalchemy.exc", "SQLAlchemyError"): "the database refused a statement: {error}.",
    (
        "alembic.util.exc",
        "CommandError",
    ): "the database's schema is not one that this version knows ({error}). Install the"
    " version of Taximeter that made it, or a newer one.",
    ("redis", "ResponseError"): "Redis refused a command: {error}. Check the rights of the user in TAXIMETER_REDIS_URL,"
    " the server's memory, and that nothing else writes keys that begin with taximeter: there; then try again.",
    (
        "redis",
        "RedisError",
    ): "Redis failed: {error}. Check that it runs and that TAXIMETER_REDIS_URL is its address, then try again.",
    ("kombu.exceptions", "KombuError"): "the broker failed: {error}. Check TAXIMETER_BROKER_URL and that it runs.",
    ("amqp.exceptions", "AMQPError"): "the broker failed: {error}. Check TAXIMETER_BROKER_URL and that it runs.",
    (
        "builtins",
        "UnicodeEncodeError",
    ): "a text holds characters that have no place where it is to be stored: a database of Taximeter must be in UTF8.",
    ("builtins", "UnicodeDecodeError"): "a text is not in UTF-8.",
    ("builtins", "MemoryError"): "there is not enough memory for this.",
}
"""How errors are told, by module and class; the first that fits. Looked up among the modules that are loaded, since
loading them all would make every command slow."""
FAILED: Final = 1
MISUSED: Final = 2


def tell(error: Exception, *, debug: bool) -> int:
    """Say what went wrong; returns the exit code."""
    if debug:
        note(_without_secrets("".join(traceback.format_exception(error))))
    note(f"taximeter: {sentence(error)}")
    return MISUSED if isinstance(error, UsageError) else FAILED


def sentence(error: Exception) -> str:
    """What a person is told of an error; it shows no secret of this process."""
    return _without_secrets(_sentence(error))


def _sentence(error: Exception) -> str:
    for (module, name), pattern in _SENTENCES.items():
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(error, kind):
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return pattern.format(error=str(error) if pattern == "{error}" else clean(lines[0]).rstrip("."))
    if isinstance(error, OSError):
        told = error.strerror or type(error).__name__
        return f"{clean(error.filename)}: {told}." if error.filename else f"{told}."
    # Its text is not shown: a library's may quote whatever it stumbled over.
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else "an unknown place"
    return (
        f"this is a fault of Taximeter ({type(error).__name__} in {place}). `taximeter --debug …` with the same command shows"
        " where it happened; please report that."
    )


def _without_secrets(text: str) -> str:
    """A sentence of some library may quote an address that it could not read."""
    from taximeter_db.secret import Secret, redact

    for name, value in os.environ.items():
        if name.startswith("TAXIMETER_") and ("://" in value or name.endswith(("SECRET", "KEY", "KEYS"))):
            Secret(value)
    return redact(text)
