"""Alembic environment: everything in schema ``taximeter``, each migration in a transaction of its own, with bounded waits."""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import Connection, create_engine, event, pool, text

from taximeter_db.connect import MIGRATIONS, connect
from taximeter_db.models import base, flags, keys, ledger, notices, page, prices, quarantine, statements  # noqa: F401  (they register their tables)

LOCK_TIMEOUT_MS = 300
"""Well below deadlock_timeout, so that it is always the migration that gives way and never a booking."""
STATEMENT_TIMEOUT_SECONDS = 300


def _only_ours(_object: Any, name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:
    """Leave partitions out of the comparison: they are made at run time, not declared."""
    return not (kind == "table" and name is not None and name.startswith(("usages_p", "usage_payloads_p")))


def _bound_waits(connection: Connection) -> None:
    """A migration must not queue behind a long reader while every booking queues behind the migration."""
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT_SECONDS}s'")


def run() -> None:
    """Migrate over one connection; the caller holds the lock that keeps migrators apart."""
    url = context.config.attributes["database_url"]
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: connect(url, profile=MIGRATIONS, autocommit=False),
        poolclass=pool.NullPool,
    )
    event.listen(engine, "begin", _bound_waits)
    with engine.connect() as connection:
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {base.SCHEMA}"))
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=base.Base.metadata,
            version_table_schema=base.SCHEMA,
            include_schemas=True,
            include_object=_only_ours,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


run()
