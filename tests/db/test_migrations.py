from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

import taximeter_db
from taximeter_db import connect, migrate
from taximeter_db.errors import DatabaseUnavailableError, SchemaError
from taximeter_db.models import (  # noqa: F401  (they register their tables)
    base,
    budgets,
    flags,
    grants,
    keys,
    ledger,
    notices,
    page,
    prices,
    producers,
    quarantine,
    statements,
)

VERSIONS = Path(taximeter_db.__file__).parent / "migrations" / "versions"

CONTRACT_VIEWS = {
    "workspace_balance": "workspace_id balance minimum_balance low_balance_threshold status ai_enabled usage_count "
    "usage_cost payment_total updated_at",
    "usage_log": "workspace_id seq event_id tool provider model quantities cost balance_after occurred_at recorded_at"
    " user_id tags hold_id",
    "payment_log": "workspace_id payment_id kind amount balance_after transaction occurred_at recorded_at",
    "quarantine_log": "id workspace_id event_id reason detail event received_at resolved_at",
}


def _not_a_partition(_object, name, kind, _reflected, _other) -> bool:
    # partitions are made at run time; alembic keeps its own table
    return not (kind == "table" and name and re.match(r"usage(s|_payloads)_p\d|alembic_version$", name))


def test_migrated_schema_is_the_declared_one(database_url: str):
    engine = create_engine(connect.sqlalchemy_url(database_url))
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "version_table_schema": "taximeter",
                "compare_type": True,
                "compare_server_default": True,
                "include_object": _not_a_partition,
            },
        )
        assert compare_metadata(context, base.Base.metadata) == []
    engine.dispose()


def test_views_are_the_contracts(database_url: str):
    with connect.connection(database_url) as conn:
        for view, columns in CONTRACT_VIEWS.items():
            found = conn.execute(f"SELECT * FROM taximeter.{view} LIMIT 0").description
            assert " ".join(column.name for column in found) == columns


def test_revisions_are_numbered_and_named():
    names = sorted(path.stem for path in VERSIONS.glob("*.py"))
    assert names
    for number, name in enumerate(names, start=1):
        assert re.fullmatch(rf"{number:04d}_[a-z_]+", name), name
    assert migrate.head() == f"{len(names):04d}"


def test_several_may_migrate_at_once(empty_database_url: str):
    code = "import sys; from taximeter_db.migrate import upgrade; upgrade(sys.argv[1])"
    others = [subprocess.Popen([sys.executable, "-c", code, empty_database_url]) for _ in range(3)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(migrate.upgrade, [empty_database_url] * 2))
    assert [other.wait(60) for other in others] == [0, 0, 0]
    migrate.upgrade(empty_database_url)
    assert migrate.current(empty_database_url) == migrate.head()
    migrate.require_current(empty_database_url)


def test_an_unmigrated_database_is_said_so(empty_database_url: str):
    assert migrate.current(empty_database_url) is None
    with pytest.raises(SchemaError, match="Run `taximeter migrate`"):
        migrate.require_current(empty_database_url)


def test_another_version_is_said_so(database_url: str):
    with psycopg.connect(database_url) as conn:
        conn.execute("UPDATE taximeter.alembic_version SET version_num = '0000'")
    with pytest.raises(SchemaError, match=r"schema is 0000, this version needs \d{4}"):
        migrate.require_current(database_url)


def test_an_absent_server_is_an_error_without_the_password():
    with pytest.raises(DatabaseUnavailableError, match="cannot be reached") as caught:
        connect.connect("postgresql://someone:hush@127.0.0.1:1/none")
    assert "hush" not in str(caught.value)
    assert "Connection refused" in str(caught.value), "the reason, not the hint that follows it"
