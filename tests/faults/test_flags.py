"""The flag follows the balance, whatever dies between the two."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest
import redis

from taximeter import names
from taximeter_db import workspaces
from taximeter_db.connect import connection
from taximeter_worker import failpoints
from taximeter_worker.flags import marks
from waiting import eventually
from workers import Feed, usage


def enabled(client: redis.Redis, workspace: str) -> str | None:
    with contextlib.suppress(redis.RedisError):
        return client.hget(names.flag_key(workspace), "enabled")
    return None


@pytest.mark.parametrize("point", failpoints.OWING_POINTS)
def test_killed_around_the_note_that_a_flag_is_owed(
    point, new_worker, own_valkey, priced_url, valkey_broker_url, ledger
):
    """Redis hangs, so the flag becomes a debt in the database; the worker dies just before or just after writing it down."""
    server = own_valkey()
    with redis.Redis.from_url(server.url(0), decode_responses=True, socket_timeout=5) as client:
        worker = new_worker(priced_url, valkey_broker_url, server.url(0), TAXIMETER_REDIS_TIMEOUT_SECONDS="0.3")
        worker.start(TAXIMETER_FAILPOINT=point)
        eventually(lambda: client.exists(names.FLAGS_READY))
        os.kill(server.pid, signal.SIGSTOP)
        try:
            feed = Feed(valkey_broker_url)
            feed.send(usage("acme", 500_000))
            assert worker.wait(60) == -signal.SIGKILL, worker.text()
            assert ledger.usages == 1
        finally:
            os.kill(server.pid, signal.SIGCONT)
        for key in feed._redis.scan_iter(match="taximeter:consumer:*"):
            feed._redis.delete(key)  # what its time to live would do in 15 seconds
        worker.start()
        eventually(lambda: enabled(client, "acme") == "0")
        eventually(lambda: ledger.one("SELECT count(*) FROM taximeter.stale_flags") == 0)
        assert worker.stop() == 0
        assert ledger.usages == 1
        feed.close()


@pytest.mark.parametrize("point", failpoints.REBUILD_POINTS)
def test_killed_while_all_flags_are_rebuilt(point, new_worker, priced_url, valkey_broker_url, redis_url, redis_client):
    """A half-made cache is not declared warm: the next worker makes it again, under a still newer epoch."""
    with connection(priced_url) as conn:
        for number in range(3):
            workspaces.set_limits(conn, f"w{number}")
    worker = new_worker(priced_url, valkey_broker_url, redis_url)
    worker.start(TAXIMETER_FAILPOINT=point)
    assert worker.wait(60) == -signal.SIGKILL, worker.text()
    assert not redis_client.exists(names.FLAGS_READY)
    worker.start()
    eventually(lambda: redis_client.exists(names.FLAGS_READY))
    assert [enabled(redis_client, f"w{number}") for number in range(3)] == ["1", "1", "1"]
    assert marks.read_ready(redis_client).epoch == 3
    assert worker.stop() == 0


def test_a_flag_redis_that_dies_and_forgets_is_filled_again(new_runtime, own_valkey, valkey_broker_url, ledger):
    server = own_valkey({"appendonly": "no"})
    new_runtime(valkey_broker_url, redis_url=server.url(0), redis_timeout_seconds=0.3)
    feed = Feed(valkey_broker_url)
    feed.send(usage("poor", 500_000), usage("fine", 1))
    with redis.Redis.from_url(server.url(0), decode_responses=True, socket_timeout=5) as client:
        eventually(lambda: enabled(client, "poor") == "0" and enabled(client, "fine") == "1")
    server.kill()
    feed.send(usage("poor", 1), usage("late", 900_000))
    eventually(lambda: ledger.usages == 4, what="booking needs no Redis")
    server.start()
    with redis.Redis.from_url(server.url(0), decode_responses=True, socket_timeout=5) as client:
        eventually(lambda: enabled(client, "poor") == "0" and enabled(client, "late") == "0")
        eventually(lambda: enabled(client, "fine") == "1", what="one without a debt comes by the rebuild")
        eventually(lambda: client.exists(names.FLAGS_READY))
    feed.close()
