"""The synchronous standby is gone: PostgreSQL answers, and no commit returns."""

from __future__ import annotations

import psycopg

from taximeter_cli.embedded.postgres import Postgres
from taximeter_db.migrate import upgrade
from waiting import eventually
from workers import Feed, Ledger, set_prices, usage


def _wait_for_a_standby(server: Postgres, name: str) -> None:
    with psycopg.connect(server.admin_url(), autocommit=True) as conn:
        conn.execute("SET synchronous_commit = local")
        conn.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
        conn.execute("SELECT pg_reload_conf()")
    with psycopg.connect(server.admin_url(), autocommit=True) as conn:
        eventually(lambda: conn.execute("SHOW synchronous_standby_names").fetchone() == (name,))


def test_commits_that_hang_are_told_and_do_not_hold_up_the_end(own_postgres, new_worker, broker_url, redis_url):
    server: Postgres = own_postgres()
    upgrade(server.url())
    set_prices(server.url())
    ledger, feed = Ledger(server.url()), Feed(broker_url)
    worker = new_worker(server.url(), broker_url, redis_url, TAXIMETER_DRAIN_SECONDS="10").start()
    feed.send(usage("acme"))
    eventually(lambda: ledger.usages == 1)
    _wait_for_a_standby(server, "gone")
    feed.send(usage("acme"))
    eventually(lambda: "booking_hangs" in worker.text(), what="the worker says so")
    assert "IPC: SyncRep" in worker.text()
    samples = worker.metrics()
    assert samples["taximeter_booking_seconds"] > 0
    assert samples["taximeter_database_answers"] == 1
    # Within the drain time and not half a minute later: what hangs is left behind.
    assert worker.stop(20) == 0, worker.text()
    _wait_for_a_standby(server, "")
    worker.start()
    feed.send(usage("acme"))
    eventually(lambda: ledger.usages == 3)
    eventually(lambda: feed.waiting() == 0)
    ledger.verify()
    ledger.close()
    feed.close()
