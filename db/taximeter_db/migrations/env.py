"""Alembic environment: one migrator at a time, bounded waits, everything in schema ``taximeter``."""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import create_engine, pool, text

from taximeter_db import models, models_keys, models_page, models_prices  # noqa: F401  (they register their tables)
from taximeter_db.connect import sqlalchemy_url
from taximeter_db.migrate import MIGRATION_LOCK


def _only_ours(_object: Any, name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:
    """Leave partitions out of the comparison: they are made at run time, not declared."""
    return not (kind == "table" and name is not None and name.startswith(("usages_p", "usage_payloads_p")))


def run() -> None:
    """Migrate over one connection that holds the migration lock."""
    url = context.config.attributes["database_url"]
    engine = create_engine(sqlalchemy_url(url), poolclass=pool.NullPool)
    with engine.connect() as connection:
        # A migration must not queue behind a long reader while every booking queues behind the migration.
        connection.execute(text("SET lock_timeout = '5s'"))
        connection.execute(text("SET statement_timeout = '300s'"))
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {models.SCHEMA}"))
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=models.Base.metadata,
            version_table_schema=models.SCHEMA,
            include_schemas=True,
            include_object=_only_ours,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


run()
