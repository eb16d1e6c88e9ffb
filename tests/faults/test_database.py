"""PostgreSQL fails in every way: a COMMIT whose reply is lost, a stall, a full disk, a restart, a backup put back."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from fault_injection.disks import SmallDisk
from proxy import Proxy
from servers import QUICK_POSTGRES
from taximeter import names
from taximeter_cli.embedded.postgres import Postgres
from taximeter_cli.embedded.valkey import BROKER_DATABASE
from taximeter_db import flag_debts
from taximeter_db.connect import connection
from taximeter_db.migrate import upgrade
from taximeter_worker.consume.brokers import rabbitmq as amqp_source
from taximeter_worker.flags import marks
from waiting import eventually
from workers import Feed, Ledger, payment, set_prices, usage


@pytest.fixture
def database(priced_url: str) -> Iterator[Proxy]:
    parts = urlsplit(priced_url)
    with Proxy(parts.hostname or "", parts.port or 0) as running:
        yield running


def sample(runtime, name: str) -> float:
    return runtime.metrics.registry.get_sample_value(name) or 0.0


def test_a_lost_reply_to_commit_costs_nothing_twice(new_runtime, database, priced_url, feed, ledger, broker_url):
    runtime = new_runtime(broker_url, database_url=database.url(priced_url))
    feed.send(usage("acme"))
    eventually(lambda: ledger.usages == 1)
    for number in range(1, 4):
        lost = database.drop_reply(b"COMMIT\x00")
        feed.send(*(usage("acme") for _ in range(10)))
        feed.pay(payment("acme", "1"))
        assert lost.wait(30)
        eventually(lambda number=number: ledger.usages == 1 + 10 * number)
        eventually(lambda number=number: ledger.one("SELECT count(*) FROM taximeter.payments") == number)
    eventually(lambda: sample(runtime, "taximeter_held_messages") == 0)
    # Each lost reply was to a transaction that had committed: its repetition found nothing new.
    assert sample(runtime, "taximeter_database_errors_total") >= 3
    assert ledger.balance("acme") == "2.969"
    ledger.verify()


def test_a_stalled_database_costs_the_broker_no_heartbeat(
    new_runtime, database, priced_url, amqp_url, ledger, monkeypatch
):
    """Booking happens off the thread that receives, so the connection lives however long a transaction hangs."""
    monkeypatch.setattr(amqp_source, "HEARTBEAT_SECONDS", 4)
    runtime = new_runtime(amqp_url, database_url=database.url(priced_url))
    feed = Feed(amqp_url)
    feed.send(usage("acme"))
    eventually(lambda: ledger.usages == 1)
    database.stall()
    feed.send(*(usage("acme") for _ in range(10)))
    # RabbitMQ closes a connection after eight to twelve seconds without a sign of life here.
    eventually(lambda: sample(runtime, "taximeter_oldest_unbooked_seconds") > 16)
    assert sample(runtime, "taximeter_broker_connected") == 1
    assert sample(runtime, "taximeter_broker_reconnects_total") == 0
    database.resume()
    eventually(lambda: ledger.usages == 11)
    eventually(lambda: sample(runtime, "taximeter_held_messages") == 0)
    assert sample(runtime, "taximeter_broker_reconnects_total") == 0
    assert ledger.duplicates == 0
    feed.close()


def test_sigterm_while_the_database_hangs_ends_in_time_and_loses_nothing(
    new_worker, database, priced_url, valkey_broker_url, redis_url, ledger
):
    url, broker_url, feed = database.url(priced_url), valkey_broker_url, Feed(valkey_broker_url)
    worker = new_worker(url, broker_url, redis_url, TAXIMETER_DRAIN_SECONDS="1").start()
    feed.send(usage("acme"))
    eventually(lambda: ledger.usages == 1)
    database.stall()
    for _ in range(5):
        feed.send(*(usage("acme") for _ in range(10)))
    eventually(lambda: feed.waiting() == 0, what="the worker holds a half-filled batch")
    assert worker.stop(60) == 0, worker.text()
    assert ledger.usages == 1
    database.resume()
    worker.start()
    eventually(lambda: ledger.usages == 51)
    assert worker.stop() == 0
    ledger.verify()
    feed.close()


@pytest.fixture
def small_disk(server_folder: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(server_folder / "full", 400)  # once in a run: the kind of the broker does not matter here
    yield disk
    disk.close()


def test_a_full_disk_is_waited_for(new_runtime, small_disk, valkey_broker_url):
    feed = Feed(valkey_broker_url)
    settings = {**QUICK_POSTGRES, "max_wal_size": "64MB", "min_wal_size": "32MB"}
    server = Postgres(small_disk.folder / "pg", settings=settings)
    try:
        server.start()
        upgrade(server.url())
        set_prices(server.url())
        runtime = new_runtime(valkey_broker_url, database_url=server.url())
        found = Ledger(server.url())
        feed.send(usage("acme"))
        eventually(lambda: found.usages == 1)
        small_disk.fill()
        sent = 1
        while sample(runtime, "taximeter_database_errors_total") < 3:
            feed.send(*(usage(f"w{number}", input="x" * 20_000) for number in range(50)))
            sent += 50
            assert sent < 50_000, "the disk never filled up"
            eventually(
                lambda: (
                    sample(runtime, "taximeter_held_messages") == 0
                    or sample(runtime, "taximeter_database_errors_total") > 0
                )
            )
        assert feed.unacknowledged() > 0, "nothing is acknowledged that is not booked"
        found.close()
        small_disk.relieve()
        if not server.running:  # it ends where not even its log of changes can be written
            server.start()
        eventually(lambda: _usages(server) == sent)
        eventually(lambda: sample(runtime, "taximeter_held_messages") == 0)
        with_verify = Ledger(server.url())
        with_verify.verify()
        with_verify.close()
    finally:
        feed.close()
        server.stop("immediate")


def _usages(server: Postgres) -> int:
    try:
        with psycopg.connect(server.url()) as conn:
            row = conn.execute("SELECT count(*) FROM taximeter.usages").fetchone()
    except psycopg.Error:
        return -1
    return row[0] if row else 0


@pytest.mark.parametrize("worker_lives", [True, False], ids=["under a worker", "between workers"])
def test_a_backup_put_back_begins_a_new_epoch(
    own_postgres: Callable[..., Postgres], new_worker, valkey, redis_client, worker_lives: bool
):
    """Flags from before the restore are ahead of the database. They come right with no event: who is switched off sends none."""
    server = own_postgres()
    upgrade(server.url())
    set_prices(server.url())
    broker = valkey.url(BROKER_DATABASE)
    feed = Feed(broker)
    worker = new_worker(server.url(), broker, valkey.url(0)).start()
    feed.pay(payment("acme", "5"), payment("other", "7"))
    eventually(lambda: redis_client.hget(names.balance_key("acme"), "balance") == "5")
    epoch = int(redis_client.hget(names.balance_key("acme"), "epoch"))
    data = (server.root / "data").resolve()
    server.stop("fast")
    backup = data.with_name("backup")
    subprocess.run(["cp", "-a", data, backup], check=True)
    server.start()
    for _ in range(20):
        feed.send(usage("acme", 300_000))
    # All of them: what is still on its way would be booked after the restore.
    eventually(lambda: redis_client.hget(names.balance_key("acme"), "balance") == "-1")
    assert redis_client.hget(names.flag_key("acme"), "enabled") == "0"
    with connection(server.url()) as conn:
        far = flag_debts.cluster_position(conn)
    eventually(lambda: not marks.read_cluster_position(redis_client).went_back_from(far))
    if not worker_lives:
        assert worker.stop() == 0
    server.stop("immediate")
    shutil.rmtree(data)
    backup.rename(data)
    server.start()
    if not worker_lives:
        worker.start()
    # acme has 5 USD again, and Redis holds a newer and worse state.
    eventually(lambda: redis_client.hget(names.flag_key("acme"), "enabled") == "1")
    assert redis_client.hget(names.balance_key("acme"), "balance") == "5"
    feed.send(usage("acme", 1000))
    eventually(lambda: redis_client.hget(names.balance_key("acme"), "balance") == "4.999")
    assert int(redis_client.hget(names.balance_key("acme"), "epoch")) > epoch
    eventually(lambda: redis_client.hget(names.balance_key("other"), "balance") == "7")
    assert worker.stop() == 0
    found = Ledger(server.url())
    found.verify()
    found.close()
    feed.close()
