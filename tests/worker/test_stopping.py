"""SIGTERM at any moment, whatever the broker does."""

from __future__ import annotations

import os
import random
import signal
import time
from urllib.parse import urlsplit

import pytest

from proxy import Proxy
from taximeter_cli.embedded.valkey import BROKER_DATABASE
from waiting import eventually
from workers import Feed, usage

pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("replies_only", [False, True])
def test_sigterm_ends_while_the_broker_is_silent(new_worker, priced_url, broker_url, redis_url, replies_only):
    parts = urlsplit(broker_url)
    with Proxy(parts.hostname or "", parts.port or 0) as proxy:
        worker = new_worker(priced_url, proxy.url(broker_url), redis_url, TAXIMETER_DRAIN_SECONDS="3").start()
        eventually(lambda: worker.connected and "ready." in worker.text())
        proxy.stall(replies_only=replies_only)
        assert worker.stop(60) == 0, worker.text()


def test_a_broker_without_memory_ends_no_worker_and_is_drained(new_worker, priced_url, own_valkey, redis_url, ledger):
    """From the start and in the midst: Celery's own consumer is refused, which must not end the worker, and ours goes on."""
    server = own_valkey()
    worker, feed = new_worker(priced_url, server.url(BROKER_DATABASE), redis_url), Feed(server.url(BROKER_DATABASE))
    feed.send(usage())
    with server.client() as admin:
        admin.config_set("maxmemory", "1")
        worker.start()
        eventually(lambda: worker.text().count("Cannot connect to redis") > 3)
        assert "used memory > 'maxmemory'" in worker.text()
        eventually(lambda: ledger.usages == 1)
        admin.config_set("maxmemory", "0")
        eventually(lambda: "ready." in worker.text())
        feed.send(usage())
        admin.config_set("maxmemory", "1")
        eventually(lambda: ledger.usages == 2)
        admin.config_set("maxmemory", "0")
        feed.send(usage())
        eventually(lambda: ledger.usages == 3)
    feed.close()
    assert worker.running
    assert "broker_lost" not in worker.text()
    assert worker.stop() == 0, worker.text()


ROUNDS = 60


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_sixty_stops_at_random_moments(new_worker, priced_url, broker_url, redis_url, feed, ledger):
    """With and without traffic, with a broker that answers, is silent or cuts; ``TAXIMETER_SEED`` repeats the choices."""
    seed = int(os.environ.get("TAXIMETER_SEED") or random.randrange(10**9))
    dice, parts, sent, slowest = random.Random(seed), urlsplit(broker_url), 0, 0.0
    print(f"\nTAXIMETER_SEED={seed}")
    with Proxy(parts.hostname or "", parts.port or 0) as proxy:
        worker = new_worker(priced_url, proxy.url(broker_url), redis_url, TAXIMETER_DRAIN_SECONDS="5")
        for _ in range(ROUNDS):
            worker.start()
            if dice.random() < 0.7:
                eventually(lambda: worker.connected)
            busy, trouble = dice.random() < 0.5, dice.choice(["none", "none", "silent", "half silent", "cut"])
            until = time.monotonic() + dice.uniform(0, 4)
            while time.monotonic() < until:
                if busy:
                    feed.send(*(usage(f"w{dice.randrange(20)}") for _ in range(20)))
                    sent += 20
                time.sleep(0.02)
            if trouble == "cut":
                proxy.cut()
            elif trouble != "none":
                proxy.stall(replies_only=trouble == "half silent")
            told = time.monotonic()
            # Before Celery has set its handlers, a signal ends it as it does any program.
            assert worker.stop(60) in {0, -signal.SIGTERM}, worker.text()
            slowest = max(slowest, time.monotonic() - told)
            proxy.resume()
            proxy.cut()
        worker.start()
        eventually(lambda: worker.connected)
        eventually(lambda: ledger.usages == sent, 240)
        assert worker.stop(60) == 0
    assert "Unrecoverable" not in worker.text()
    ledger.verify()
    cuts = worker.text().count("stop_cut_short")
    print(f"{ROUNDS} stops, the slowest after {slowest:.1f} s, {cuts} cut short; {sent:,} events, each booked once")
