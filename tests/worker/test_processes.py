"""Worker processes that are stopped, killed, doubled and cut off."""

from __future__ import annotations

import signal

import pytest

from taximeter import names
from taximeter_cli.embedded.valkey import BROKER_DATABASE
from taximeter_worker import failpoints
from waiting import eventually
from workers import Feed, Ledger, WorkerProcess, payment, usage

# A worker's start costs two seconds of CPU; on a crowded machine that is half a minute.
pytestmark = pytest.mark.timeout(900)


def test_sigterm_finishes_what_is_here(worker: WorkerProcess, feed: Feed, ledger: Ledger):
    eventually(lambda: worker.connected)
    for _ in range(200):
        feed.send(*(usage(f"w{number}") for number in range(10)))
    eventually(lambda: ledger.usages > 0)
    assert worker.stop() == 0, worker.text()
    booked = ledger.usages
    worker.start()
    eventually(lambda: ledger.usages == 2000)
    assert ledger.duplicates == 0, "what was booked had been acknowledged"
    assert booked <= 2000
    ledger.verify()


def test_killed_at_every_point_it_still_happens_once(new_worker, priced_url, valkey, ledger, redis_client):
    url = valkey.url(BROKER_DATABASE)
    feed = Feed(url)
    worker = new_worker(priced_url, url, valkey.url(0))
    redis_client.set(names.FLAGS_READY, "1")  # warm: a rebuild would write them all
    for point in failpoints.BOOKING_POINTS:
        # A workspace for each, so that no later batch writes the flag of an earlier one.
        feed.send(*(usage(point, 100_000) for _ in range(10)))
        worker.start(TAXIMETER_FAILPOINT=point)
        assert worker.wait(60) == -signal.SIGKILL, (point, worker.text())
        # What its time to live would do in 15 seconds.
        for key in feed._redis.scan_iter(match="taximeter:consumer:*"):
            feed._redis.delete(key)
    worker.start()
    eventually(lambda: worker.connected)
    eventually(lambda: feed.waiting() == feed.unacknowledged() == 0)
    for point in failpoints.BOOKING_POINTS:
        eventually(lambda point=point: redis_client.hget(names.balance_key(point), "balance") == "-1", what=point)
        assert redis_client.hget(names.flag_key(point), "enabled") == "0", point
    assert ledger.usages == 10 * len(failpoints.BOOKING_POINTS)
    assert worker.stop() == 0
    ledger.verify()
    feed.close()


def test_a_killed_worker_costs_rabbitmq_nothing(new_worker, priced_url, amqp_url, redis_url, ledger):
    feed = Feed(amqp_url)
    feed.send(*(usage("acme", 1000) for _ in range(50)))
    worker = new_worker(priced_url, amqp_url, redis_url).start(TAXIMETER_FAILPOINT="after_commit")
    assert worker.wait() == -signal.SIGKILL, worker.text()
    worker.start()
    eventually(lambda: ledger.duplicates == 50)
    assert ledger.usages == 50
    assert worker.stop() == 0
    feed.close()


def test_two_workers_share_one_queue(new_worker, priced_url, broker_url, redis_url, feed, ledger):
    workers = [new_worker(priced_url, broker_url, redis_url).start() for _ in range(2)]
    for worker in workers:
        eventually(lambda worker=worker: worker.connected)
    events = [usage(f"w{number % 20}") for number in range(3000)]
    for start in range(0, 3000, 20):
        chunk = events[start : start + 20]
        feed.send(*chunk)
        feed.send(*reversed(chunk[:7]))
    eventually(lambda: ledger.usages == 3000)
    eventually(lambda: ledger.duplicates == 1050)
    counted = [worker.metrics()['taximeter_events_total{kind="usage",outcome="booked"}'] for worker in workers]
    assert sum(counted) == 3000
    assert min(counted) > 0
    assert [worker.stop() for worker in workers] == [0, 0]
    ledger.verify()


def test_a_restarted_valkey_is_found_again(new_worker, priced_url, own_valkey, redis_url, ledger):
    server = own_valkey({"appendonly": "yes", "appendfsync": "always"})
    url = server.url(BROKER_DATABASE)
    worker = new_worker(priced_url, url, redis_url).start()
    feed = Feed(url)
    feed.send(usage())
    eventually(lambda: ledger.usages == 1)
    server.kill()
    eventually(lambda: "broker_lost" in worker.text())
    server.start()
    feed.close()
    feed = Feed(server.url(BROKER_DATABASE))
    feed.send(usage())
    eventually(lambda: ledger.usages == 2)
    feed.close()
    assert worker.stop() == 0


def test_a_restarted_rabbitmq_is_found_again(new_worker, priced_url, own_rabbitmq, redis_url, ledger):
    node = own_rabbitmq()
    worker = new_worker(priced_url, node.url(), redis_url).start()
    feed = Feed(node.url())
    feed.send(usage())
    eventually(lambda: ledger.usages == 1)
    node.let_queues_settle()
    node.kill()
    feed.close()
    eventually(lambda: "broker_lost" in worker.text())
    node.start()
    feed = Feed(node.url())
    feed.send(usage())
    eventually(lambda: ledger.usages == 2)
    assert worker.stop() == 0
    feed.close()


def test_sigterm_ends_without_database_and_broker(new_worker, environment, free_ports):
    worker = new_worker(
        f"postgresql://nobody@127.0.0.1:{free_ports[0]}/none",
        f"redis://127.0.0.1:{free_ports[1]}/1",
        f"redis://127.0.0.1:{free_ports[2]}/0",
    ).start()
    eventually(lambda: "background_waits" in worker.text())
    assert worker.stop() == 0, worker.text()
    assert "Traceback" not in worker.text()


@pytest.fixture
def free_ports() -> list[int]:
    from taximeter_cli.embedded.process import free_port

    return [free_port() for _ in range(3)]


def test_prefork_works_too(new_worker, priced_url, valkey, ledger):
    url = valkey.url(BROKER_DATABASE)
    worker = new_worker(priced_url, url, valkey.url(0))
    worker.options += ["--pool", "processes"]
    worker.start()
    feed = Feed(url)
    feed.send(usage())
    feed.pay(payment("acme", "1"))
    eventually(lambda: ledger.balance("acme") == "0.999")
    assert worker.stop() == 0, worker.text()
    feed.close()


def test_no_body_reaches_the_log(worker: WorkerProcess, feed: Feed, ledger: Ledger):
    feed.send(usage(input="secret-prompt", output="secret-answer"), usage(model="unpriced", input="secret-prompt"))
    feed.send_raw(b'{"secret-prompt', names.CONTENT_TYPE_EVENT)
    eventually(lambda: ledger.usages == 1)
    eventually(lambda: sum(ledger.quarantined().values()) == 2)
    assert worker.stop() == 0
    assert "secret" not in worker.text()


def test_poison_ends_no_process(worker: WorkerProcess, feed: Feed, ledger: Ledger):
    """These end Celery's own consumer, again and again, if they ever reach it."""
    eventually(lambda: worker.connected and "ready." in worker.text())
    for body in (b"[1]", b"null"):
        for queue in (names.USAGE_QUEUE, names.PAYMENT_QUEUE):
            feed.send_raw(body, "application/json", queue)
    feed.send(usage())
    eventually(lambda: ledger.usages == 1)
    eventually(lambda: sum(ledger.quarantined().values()) == 2, what="each once")
    assert worker.running
    assert "Traceback" not in worker.text()
    assert worker.stop() == 0, worker.text()


def test_a_worker_that_sleeps_too_long_books_nothing_twice(new_worker, priced_url, valkey, ledger):
    """SIGSTOP for longer than its sign of life lasts: another worker takes over, the sleeper finds itself fenced."""
    url = valkey.url(BROKER_DATABASE)
    sleeper = new_worker(priced_url, url, valkey.url(0)).start()
    eventually(lambda: sleeper.connected)
    sleeper.signal(signal.SIGSTOP)
    feed = Feed(url)
    feed.send(*(usage("acme", 1000) for _ in range(10)))
    [consumer] = feed._redis.hkeys(names.CONSUMERS)
    feed._redis.delete(b"taximeter:consumer:" + consumer)
    other = new_worker(priced_url, url, valkey.url(0)).start()
    eventually(lambda: ledger.usages == 10)
    sleeper.signal(signal.SIGCONT)
    eventually(lambda: sleeper.text().count("broker_connected") == 2)
    feed.send(*(usage("acme", 1000) for _ in range(10)))
    eventually(lambda: ledger.usages == 20)
    assert [sleeper.stop(), other.stop()] == [0, 0]
    ledger.verify()
    feed.close()
