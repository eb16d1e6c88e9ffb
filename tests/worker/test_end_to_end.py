"""The whole path through a real worker process, on both brokers."""

from __future__ import annotations

import redis

from waiting import eventually
from workers import Feed, Ledger, WorkerProcess, payment, usage


def test_usage_is_booked_flagged_and_acknowledged(
    worker: WorkerProcess, feed: Feed, ledger: Ledger, redis_client: redis.Redis
):
    feed.send(usage("acme", 50_000), usage("acme", 50_000), usage("other", 7))
    feed.send_each([usage("acme", 20_000)])
    eventually(lambda: ledger.usages == 4, what="four usages")
    assert ledger.balance("acme") == "-0.12"
    eventually(lambda: redis_client.hget("taximeter:balance:{acme}", "balance") == "-0.12")
    assert redis_client.hget("taximeter:flag:{acme}", "enabled") == "1"
    assert redis_client.hget("taximeter:flag:{acme}", "status") == "low"
    feed.send(usage("acme", 1))
    eventually(lambda: redis_client.hget("taximeter:flag:{acme}", "enabled") == "0")
    feed.pay(payment("acme", "5"))
    eventually(lambda: redis_client.hget("taximeter:flag:{acme}", "enabled") == "1")
    assert worker.stop() == 0, worker.text()
    assert feed.waiting() == 0
    ledger.verify()
