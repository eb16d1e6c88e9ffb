"""The schema changes beside running workers, and code and schema that do not fit each other say so.

docs/upgrades.md promises what is tested here.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

import taximeter_db
from taximeter_db import connect, migrate, schema, workspaces
from taximeter_db.audit.verify import verify
from taximeter_db.errors import SchemaError
from taximeter_db.ledger import booking, partitions, rollups
from taximeter_db.models import base, ledger
from taximeter_db.queries import summary, usages

PACKAGE = Path(taximeter_db.__file__).parent
ONLINE_SINCE = "0013"
"""The first migration that was written for a running system."""
MIGRATIONS = sorted(path.name[:4] for path in (PACKAGE / "migrations" / "versions").glob("0*.py"))
BLOCKING = re.compile(
    r"\b(CREATE\s+(UNLOGGED\s+)?TABLE|ALTER\s+TABLE|DROP\s+(TABLE|INDEX|VIEW)|TRUNCATE|LOCK\s+TABLE|REINDEX|CLUSTER"
    r"|VACUUM\s+FULL|CREATE\s+(UNIQUE\s+)?INDEX|CREATE\s+TRIGGER|REFRESH\s+MATERIALIZED)\b",
    re.IGNORECASE,
)


@contextmanager
def long_reader(url: str) -> Iterator[None]:
    """A transaction that has read every table and goes on, as pg_dump and `verify` do."""
    with psycopg.connect(url) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        for table in base.Base.metadata.sorted_tables:
            if reader.execute("SELECT to_regclass(%s)", [str(table)]).fetchone() != (None,):
                reader.execute(f"SELECT count(*) FROM {table}")
        yield


def test_partitions_are_made_beside_a_long_reader_while_bookings_go_on(database_url, conn, usage):
    booking.book(conn, [usage("a")])
    with connect.connection(database_url) as maker, long_reader(database_url):
        maker.execute("SET lock_timeout = '10s'")
        with maker.transaction():  # the slowest moment: made, and not committed yet
            assert partitions.ensure(maker, ahead_days=400) > 5
            assert booking.book(conn, [usage("a"), usage("b")]).usages_booked == 2
        assert partitions.ahead_seconds(conn) > 400 * 86_400
        assert booking.book(conn, [usage("a")]).usages_booked == 1


def test_a_partition_is_like_its_log(database_url):
    """Whatever the parent has, made whichever way: columns, keys, triggers, nothing readable by others."""
    with connect.connection(database_url) as conn:
        partitions.ensure(conn, ahead_days=400)
        for parent in ("usages", "usage_payloads"):
            leaves = [
                name
                for (name,) in conn.execute(
                    "SELECT relid::text FROM pg_partition_tree(%s::regclass) WHERE isleaf", [f"taximeter.{parent}"]
                )
            ]
            assert len(leaves) > 10
            for query in (
                "SELECT attname, atttypid, attnotnull, attstorage FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0",
                "SELECT contype FROM pg_constraint WHERE conrelid = %s::regclass ORDER BY 1",
                "SELECT tgname, tgtype FROM pg_trigger WHERE tgrelid = %s::regclass ORDER BY 1",
            ):
                found = {name: sorted(map(str, conn.execute(query, [name]).fetchall())) for name in leaves}
                assert all(one == found[leaves[0]] for one in found.values()), query
            with pytest.raises(psycopg.errors.RestrictViolation):
                conn.execute(f"TRUNCATE {leaves[-1]}")


def test_who_is_in_the_way_of_a_partition_is_not_waited_for_without_end(database_url, conn, usage):
    with psycopg.connect(database_url) as vacuum:
        vacuum.execute("LOCK TABLE taximeter.usages IN SHARE UPDATE EXCLUSIVE MODE")
        with connect.connection(database_url) as maker:
            maker.execute("SET statement_timeout = '60s'")  # so that waiting without end fails, and hangs no test
            for make in (partitions.ensure, lambda conn, ahead_days: conn.execute(
                "SELECT taximeter.ensure_partition_at(now() + make_interval(days => %s))", [ahead_days]
            )):  # fmt: skip
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    make(maker, ahead_days=400)
        assert booking.book(conn, [usage("a")]).usages_booked == 1


def test_what_runs_by_itself_never_waits_for_an_exclusive_lock_without_end(database_url):
    """Statements of the running system: `.sql` files and functions. Neither changes a table, but for the partitions'."""
    for path in sorted((PACKAGE / "sql").glob("*.sql")):
        if path.name == "demo_clock.sql":
            continue  # runs once, by the owner, while the demonstration's database is filled
        text = re.sub(r"--.*", "", path.read_text())
        text = re.sub(r"\b(CREATE UNLOGGED TABLE|(CREATE|ALTER|DROP) TABLE) \{schema\}\.", "", text)  # nobody else's
        assert not BLOCKING.search(text), f"{path.name} changes a table"
    with connect.connection(database_url) as conn:
        functions = conn.execute(
            """SELECT proname, prosrc, coalesce(array_to_string(proconfig, ' '), '') FROM pg_proc
               WHERE pronamespace = 'taximeter'::regnamespace AND prosrc IS NOT NULL"""
        ).fetchall()
    changing = {name: settings for name, source, settings in functions if BLOCKING.search(source)}
    # called by migrations, and by ensure_partition_at for a table that nobody sees yet
    helpers = {"make_append_only", "keep_to_workspace"}
    assert changing.keys() - helpers == {"ensure_partition_at"}
    assert "lock_timeout=2s" in changing["ensure_partition_at"]


@pytest.mark.parametrize("revision", [number for number in MIGRATIONS if number >= ONLINE_SINCE])
def test_no_migration_makes_bookings_wait_for_a_reader(empty_database_url, usage, revision):
    """With a reader in its way the migration gives way again and again; bookings go on in between."""
    before = MIGRATIONS[MIGRATIONS.index(revision) - 1]
    migrate.upgrade(empty_database_url, before)
    with (
        connect.connection(empty_database_url, profile=connect.MIGRATIONS) as conn,
        ThreadPoolExecutor(1) as pool,
    ):
        with long_reader(empty_database_url):
            # What the booking transaction locks, in its order; the code of this version may need the newer schema.
            migration = pool.submit(migrate.upgrade, empty_database_url, revision)
            for number in range(30):
                _book_as_ever(conn, f"a{number % 3}", number)
        migration.result()
    assert migrate.current(empty_database_url) == revision


def test_upgrading_beside_old_workers_and_readers_deadlocks_nobody(empty_database_url):
    migrate.upgrade(empty_database_url, "0006")
    ended = threading.Event()
    booked = [0, 0, 0]

    def work(number: int) -> None:
        with psycopg.connect(empty_database_url, autocommit=True) as conn:
            while not ended.is_set():
                _book_as_ever(conn, f"w{number}", booked[number])
                booked[number] += 1

    def read() -> None:
        with psycopg.connect(empty_database_url) as conn:
            while not ended.is_set():
                conn.execute("SELECT count(*) FROM taximeter.usages")
                conn.execute("SELECT pg_sleep(0.05)")
                conn.execute("SELECT count(*) FROM taximeter.workspaces")
                conn.rollback()

    with ThreadPoolExecutor(4) as pool:
        doing = [*(pool.submit(work, number) for number in range(3)), pool.submit(read)]
        try:
            migrate.upgrade(empty_database_url)
        finally:
            ended.set()
        for one in doing:
            one.result()
    assert migrate.current(empty_database_url) == schema.newest()
    with connect.connection(empty_database_url) as conn:
        assert conn.execute("SELECT count(*) FROM taximeter.usages").fetchone() == (sum(booked),)
        assert conn.execute("SELECT sum(usage_count) FROM taximeter.workspaces").fetchone() == (sum(booked),)


def _book_as_ever(conn: psycopg.Connection, workspace_id: str, number: int) -> None:
    """A booking as every version since 0001 makes it: keys, workspace, log, in this order."""
    with conn.transaction():
        conn.execute(
            "INSERT INTO taximeter.usage_keys (event_key, workspace_id, fingerprint)"
            " VALUES (gen_random_uuid(), %s, gen_random_uuid())",
            [workspace_id],
        )
        seq, recorded_at = conn.execute(
            """INSERT INTO taximeter.workspaces AS w (workspace_id, usage_count, version) VALUES (%s, 1, 1)
               ON CONFLICT (workspace_id) DO UPDATE SET usage_count = w.usage_count + 1, version = w.version + 1
               RETURNING usage_count, clock_timestamp()""",
            [workspace_id],
        ).fetchone()
        conn.execute(
            """INSERT INTO taximeter.usages (seq, entry, price_version, occurred_at, recorded_at, cost, balance_after,
                                             workspace_id, event_id, tool, quantities)
               VALUES (%s, %s, 1, now(), %s, 0, 0, %s, %s, 'chat', '{}')""",
            [seq, seq, recorded_at, workspace_id, f"e{number}"],
        )


def test_this_version_works_on_the_oldest_schema_that_it_supports(empty_database_url, usage, payment):
    """Between `taximeter migrate` of one release and of the next: workers of the newer one may start first."""
    migrate.upgrade(empty_database_url, schema.OLDEST_SUPPORTED)
    with connect.booking_connection(empty_database_url) as conn:
        outcome = booking.book(conn, [usage("a", cost=5), usage("b", payload=b"{}")], [payment("a", amount=7)])
        assert (outcome.usages_booked, outcome.payments_booked) == (2, 1)
        booking.book(conn, [usage("a", "again")])
        assert booking.book(conn, [usage("a", "again", cost=9)]).rejected == {"id_conflict": 1}
        rollups.advance(conn, "a")
        assert workspaces.get(conn, "a").usage_count == 2
        assert summary.read(conn, "a").known
        assert len(usages.between(conn, "a", 1, 10)) == 2
        partitions.ensure(conn)
        assert verify(conn).ok


def test_a_schema_that_is_too_old_is_said_at_connect(empty_database_url):
    migrate.upgrade(empty_database_url, MIGRATIONS[MIGRATIONS.index(schema.OLDEST_SUPPORTED) - 1])
    with pytest.raises(SchemaError, match=rf"needs {schema.OLDEST_SUPPORTED} at least. Run `taximeter migrate`"):
        connect.connect(empty_database_url)


def test_no_schema_is_said_at_connect(empty_database_url):
    with pytest.raises(SchemaError, match="no Taximeter schema yet"):
        connect.booking_connection(empty_database_url)


@pytest.mark.parametrize("login", ["worker", "dashboard", "metrics"])
def test_a_schema_that_is_too_new_is_said_at_connect_to_every_part(
    database_url: str, role_url: Callable[[str], str], login: str
):
    _pretend_upgrade(database_url, oldest_code="9998")
    with pytest.raises(SchemaError) as caught:
        connect.connect(role_url(login))
    assert "9998" in str(caught.value)
    assert f"this one knows {schema.newest()}" in str(caught.value)


def test_the_next_schema_is_worked_on_where_it_allows_that(database_url, usage):
    _pretend_upgrade(database_url, oldest_code=schema.newest())
    with connect.booking_connection(database_url) as conn:
        assert booking.book(conn, [usage("a")]).usages_booked == 1


def _pretend_upgrade(url: str, oldest_code: str) -> None:
    with psycopg.connect(url) as conn:
        conn.execute("UPDATE taximeter.alembic_version SET version_num = '9999'")
        conn.execute(
            f"CREATE OR REPLACE FUNCTION taximeter.oldest_code() RETURNS text LANGUAGE sql IMMUTABLE RETURN '{oldest_code}'"
        )


def test_an_older_version_does_not_migrate_a_newer_schema(database_url):
    _pretend_upgrade(database_url, oldest_code="0000")
    with pytest.raises(SchemaError, match="newer than this version of Taximeter"):
        migrate.upgrade(database_url)


def test_each_migration_declares_its_tables_to_the_models():
    """For the reader that the tests above put in a migration's way: it has read all that there is."""
    assert {"usages", "workspaces", "usage_keys", "quarantine"} <= {
        table.name for table in base.Base.metadata.sorted_tables
    }
    assert ledger.Usage.__table__.schema == "taximeter"
