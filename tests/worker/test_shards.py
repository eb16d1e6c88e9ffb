"""Workers that share the shards among them, and the key that is served whatever the shards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from taximeter import Meter, names
from taximeter_cli.embedded.valkey import BROKER_DATABASE, Valkey
from taximeter_db.errors import ConfigurationError
from taximeter_worker.consume.brokers.redis import RedisSource, alive_key
from taximeter_worker.settings import Settings
from waiting import eventually
from workers import Feed, Ledger, WorkerProcess, usage

SHARDS = 4
ADDRESSES = {
    "TAXIMETER_DATABASE_URL": "postgresql://h/d",
    "TAXIMETER_BROKER_URL": "amqp://h//",
    "TAXIMETER_REDIS_URL": "redis://h/0",
}


def read(shards: str, consume: str) -> Settings:
    return Settings.from_env({**ADDRESSES, "TAXIMETER_SHARDS": shards, "TAXIMETER_CONSUME_SHARDS": consume})


def test_queues_of_a_worker():
    assert read("1", "all").usage_queues == ("taximeter.usage",)
    assert read("1", "0").usage_queues == ("taximeter.usage",)
    assert read("2", "").usage_queues == ("taximeter.usage.0", "taximeter.usage.1", "taximeter.usage")
    assert read("8", "1, 4-5").usage_queues == (
        "taximeter.usage.1",
        "taximeter.usage.4",
        "taximeter.usage.5",
        "taximeter.usage",
    )


@pytest.mark.parametrize("consume", ["4", "0-4", "x", "1-", "-1", "3-1", ","])
def test_shards_that_do_not_exist_are_refused(consume):
    with pytest.raises(ConfigurationError, match="TAXIMETER_CONSUME_SHARDS"):
        read("4", consume)


def test_two_workers_share_the_shards_and_serve_the_plain_key(
    new_worker: Callable[..., WorkerProcess],
    priced_url: str,
    broker_url: str,
    redis_url: str,
    feed: Feed,
    ledger: Ledger,
    tmp_path: Path,
):
    addresses = (priced_url, broker_url, redis_url)
    first = new_worker(*addresses, TAXIMETER_SHARDS=str(SHARDS), TAXIMETER_CONSUME_SHARDS="0,2").start()
    workspaces = [f"ws-{number}" for number in range(24)]
    theirs = [name for name in workspaces if names.usage_routing_key(name, SHARDS) in {"usage.0", "usage.2"}]
    assert 0 < len(theirs) < len(workspaces)
    with Meter(broker_url=broker_url, spool=tmp_path / "spool", shards=SHARDS) as meter:
        for _ in range(3):
            for name in workspaces:
                meter.record(name, tool="chat", provider="p", model="m", quantities={"input_tokens": 1})
        meter.flush(20)
        feed.send(usage("foreign", 7))
        eventually(lambda: ledger.usages == 3 * len(theirs) + 1, what="the first worker's shards and the plain key")
        second = new_worker(*addresses, TAXIMETER_SHARDS=str(SHARDS), TAXIMETER_CONSUME_SHARDS="1,3").start()
        eventually(lambda: ledger.usages == 3 * len(workspaces) + 1, what="the other shards")
    ledger.verify()
    assert first.stop() == 0, first.text()
    assert second.stop() == 0, second.text()


def test_a_dead_consumers_shards_go_back_though_the_living_has_others(valkey: Valkey):
    address = valkey.url(BROKER_DATABASE)
    settings = [
        Settings(database_url="postgresql://nowhere", broker_url=address, redis_url=valkey.url(0), shards=2, **shard)
        for shard in ({"consume_shards": (0,)}, {"consume_shards": (1,)})
    ]
    dead, living = map(RedisSource, settings)
    with redis.Redis.from_url(address) as client:
        try:
            dead.open()
            living.open()
            client.lpush("taximeter.usage.0", "a", "b")
            client.lpush("taximeter.usage.1", "c")
            assert [message.body for message in dead.poll(1)] == [b"a", b"b"]
            client.delete(alive_key(dead._id))
            living._reclaim_dead()
            assert client.lrange("taximeter.usage.0", 0, -1) == [b"b", b"a"]
            assert [message.body for message in living.poll(1)] == [b"c"]
            living.ack(1)
        finally:
            dead.close()
            living.close()
        assert client.keys("*processing*") == []


def test_no_shard_waits_behind_a_full_one(valkey: Valkey):
    address = valkey.url(BROKER_DATABASE)
    source = RedisSource(
        Settings(
            database_url="postgresql://nowhere",
            broker_url=address,
            redis_url=valkey.url(0),
            shards=3,
            batch_bytes_max=1024,
        )
    )
    with redis.Redis.from_url(address) as client:
        for shard in range(3):
            client.lpush(f"taximeter.usage.{shard}", *(f"{shard}" * 600 for _ in range(20)))
        try:
            source.open()
            first = [message.queue for _ in range(4) for message in source.poll(1)]
        finally:
            source.close()
    assert set(first) == {f"taximeter.usage.{shard}" for shard in range(3)}
