"""A meter on real servers, what it recorded, and a server that answers like a provider."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from servers.provider import Replay, serving
from taximeter import Meter, names
from taximeter_cli.embedded.valkey import BROKER_DATABASE, Valkey


class Recorded:
    """What has arrived at the broker."""

    def __init__(self, meter: Meter, url: str) -> None:
        self._meter = meter
        self._url = url

    def __call__(self) -> list[dict[str, Any]]:
        """Take the data of all events, in order."""
        self._meter.flush()
        with redis.Redis.from_url(self._url) as client:
            bodies = iter(lambda: client.rpop(names.USAGE_QUEUE), None)
            return [{"workspace": event["subject"], **event["data"]} for body in bodies for event in json.loads(body)]


@pytest.fixture
def provider() -> Iterator[Replay]:
    """A provider on loopback."""
    with serving(Replay()) as replay:
        yield replay


@pytest.fixture
def meter(valkey: Valkey, redis_url: str, redis_client: Any, tmp_path: Path) -> Iterator[Meter]:
    """A meter whose workspace ``acme`` may use AI and whose workspace ``broke`` may not."""
    redis_client.set(names.FLAGS_READY, "1")
    redis_client.hset(names.flag_key("acme"), mapping={"enabled": "1", "status": "sufficient"})
    redis_client.hset(names.flag_key("broke"), mapping={"enabled": "0", "status": "insufficient"})
    with Meter(
        broker_url=valkey.url(BROKER_DATABASE), redis_url=redis_url, spool=tmp_path / "spool", timeout_seconds=2
    ) as made:
        yield made


@pytest.fixture
def recorded(meter: Meter, valkey: Valkey) -> Callable[[], list[dict[str, Any]]]:
    """``recorded()`` takes the data of what the meter recorded."""
    return Recorded(meter, valkey.url(BROKER_DATABASE))
