"""Everything goes through PgBouncer in transaction mode: booking, tasks, migrations and the page."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from servers import pgbouncer as pooler
from taximeter_cli.embedded.logins import part_url
from taximeter_dashboard.database import Database
from taximeter_db import connect, locks, migrate, workspaces
from taximeter_db.locks import AdvisoryLock
from taximeter_db.queries import scope, summary
from waiting import eventually
from workers import Feed, payment, usage


@pytest.fixture
def pgbouncer(postgres) -> Iterator[pooler.PgBouncer]:
    parts = (part_url(postgres.url(), part) for part in ("worker", "dashboard", "metrics"))
    with pooler.pgbouncer([postgres.url(), *parts]) as running:
        yield running


def test_a_worker_books_and_its_tasks_run_behind_a_pooler(
    pgbouncer, new_worker, priced_url, valkey_broker_url, redis_url, ledger
):
    feed = Feed(valkey_broker_url)
    worker = new_worker(pgbouncer.url(priced_url), valkey_broker_url, redis_url).start()
    for number in range(20):
        feed.send(*(usage(f"w{number % 4}") for _ in range(50)))
        feed.pay(payment(f"w{number % 4}", "1"))
    eventually(lambda: ledger.usages == 1_000)
    eventually(lambda: ledger.one("SELECT count(*) FROM taximeter.payments") == 20)
    # the task of the roll-ups, which holds a lock for all of its transactions
    eventually(lambda: ledger.one("SELECT coalesce(sum(seq), 0) FROM taximeter.rollup_progress") == 1_000)
    assert worker.stop() == 0
    assert "prepared statement" not in worker.text()
    ledger.verify()
    feed.close()


def test_the_page_reads_behind_a_pooler(pgbouncer, database_url):
    with connect.booking_connection(database_url) as conn:
        workspaces.set_limits(conn, "acme")
    database = Database(pgbouncer.url(database_url))
    try:
        for _ in range(10):
            with database.transaction() as conn:
                assert conn.pooled
                scope.enter(conn, "acme")
                assert summary.read(conn, "acme").known
                assert conn.execute("SHOW statement_timeout").fetchone() == ("15s",)
    finally:
        database.close()


def test_nothing_of_a_session_is_left_to_the_next_client(pgbouncer, database_url):
    """Settings and locks end with the transaction: another program on the same pool finds the server as it was."""
    address = pgbouncer.url(database_url)
    with connect.booking_connection(address) as conn:
        assert conn.pooled
        for _ in range(8):
            with conn.transaction():
                assert conn.execute("SHOW enable_hashjoin").fetchone() == ("off",)
                assert conn.execute("SHOW extra_float_digits").fetchone() == ("1",)
        with locks.try_hold(conn, AdvisoryLock.REPLAY) as held:
            assert held
            with connect.connection(database_url) as straight, locks.try_hold(straight, AdvisoryLock.REPLAY) as twice:
                assert not twice
    for _ in range(8):
        with psycopg.connect(address, autocommit=True, prepare_threshold=None) as stranger:
            assert stranger.execute("SHOW enable_hashjoin").fetchone() == ("on",)
            assert stranger.execute("SHOW lock_timeout").fetchone() == ("0",)
    with connect.connection(database_url) as straight:
        held = straight.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone()
        assert held == (0,)
        with locks.try_hold(straight, AdvisoryLock.REPLAY) as free:
            assert free


def test_migrations_run_behind_a_pooler(pgbouncer, empty_database_url):
    address = pgbouncer.url(empty_database_url)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(migrate.upgrade, [address] * 2))
    migrate.require_current(empty_database_url)


def test_a_connection_to_the_server_itself_is_not_taken_for_a_pooler(database_url):
    with connect.booking_connection(database_url) as conn:
        assert not conn.pooled
        assert conn.prepare_threshold == 0
