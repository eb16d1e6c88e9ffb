"""Connections to PostgreSQL, for booking and for everything else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import Connection

from taximeter_db import roles, rows
from taximeter_db.errors import DatabaseUnavailableError, SchemaError
from taximeter_db.secret import Secret, redact

CONNECT_TIMEOUT_SECONDS = 5


def sqlalchemy_url(url: str) -> str:
    """Name the psycopg driver in a libpq URL, whichever SQLAlchemy version reads it."""
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            return "postgresql+psycopg://" + url.removeprefix(scheme)
    return url


def connect(url: str, *, autocommit: bool = True, application_name: str = "taximeter") -> Connection[tuple[Any, ...]]:
    """Open a plain psycopg connection.

    Raises:
        DatabaseUnavailableError: PostgreSQL cannot be reached; the sentence holds no password.
    """
    url = Secret(url).reveal()
    try:
        # PgBouncer before 1.21 loses prepared statements; nothing outside booking gains from them.
        return psycopg.connect(
            url.replace("postgresql+psycopg://", "postgresql://", 1),
            autocommit=autocommit,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            application_name=application_name,
            prepare_threshold=None,
        )
    except (psycopg.OperationalError, psycopg.ProgrammingError) as error:
        # libpq quotes what it cannot parse, which may be a part of the password
        raise DatabaseUnavailableError(
            f"PostgreSQL cannot be reached: {redact(_first_line(error))}. Check TAXIMETER_DATABASE_URL and that the server runs."
        ) from error


def _first_line(error: BaseException) -> str:
    # The first says what failed; those after it are details, hints and, of several hosts, the others.
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


@contextmanager
def connection(url: str, *, autocommit: bool = True) -> Iterator[Connection[tuple[Any, ...]]]:
    """A plain connection that is closed at the end."""
    conn = connect(url, autocommit=autocommit)
    try:
        yield conn
    finally:
        conn.close()


def booking_connection(url: str) -> Connection[tuple[Any, ...]]:
    """Open a connection for `taximeter_db.ledger.book`: tuned so that rows are locked in the order they are given.

    Two workers that lock the same balances in different orders deadlock. The ledger hands its rows over sorted, and
    the order survives only in a plan that walks them one by one into the primary key; so every other kind of plan is
    switched off on this connection.

    Raises:
        DatabaseUnavailableError: PostgreSQL cannot be reached.
        SchemaError: The database user may not book.
    """
    conn = connect(url, application_name="taximeter booking")
    rows.register(conn)
    conn.execute(
        "SET search_path = taximeter, pg_catalog; SET enable_hashjoin = off; SET enable_mergejoin = off;"
        "SET enable_seqscan = off; SET enable_bitmapscan = off; SET jit = off; SET synchronous_commit = on;"
        "SET idle_in_transaction_session_timeout = '60s'; SET lock_timeout = '30s'; SET timezone = 'UTC'"
    )
    try:
        roles.require_worker(conn)
    except SchemaError:
        conn.close()
        raise
    conn.prepare_threshold = 0  # the same few statements for ever; PgBouncer needs 1.21 or session pooling
    return conn
