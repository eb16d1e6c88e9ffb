"""Usages split over several queues by workspace."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_events import usage_event
from taximeter import Meter, names
from taximeter.errors import ConfigurationError

SHARDS = 3
WORKSPACES = [f"ws-{number}" for number in range(40)]
REQUEST: dict[str, Any] = {"tool": "chat", "quantities": {"requests": 1}}


def test_keys_and_queues() -> None:
    assert names.usage_routing_key("acme", 1) == "usage"
    assert names.usage_routing_key("acme", 8) == f"usage.{zlib.crc32(b'acme') % 8}" == "usage.6"
    assert names.usage_routing_keys(1) == ("usage",)
    assert names.usage_routing_keys(3) == ("usage.0", "usage.1", "usage.2")
    assert names.queue_of("usage") == names.USAGE_QUEUE
    assert names.queue_of("payment") == names.PAYMENT_QUEUE
    assert names.queue_of("usage.2") == "taximeter.usage.2"


def test_a_workspaces_events_meet_in_one_queue_in_order(broker: Any, make_meter: Callable[..., Meter]) -> None:
    broker.declare(*names.usage_routing_keys(SHARDS))
    meter = make_meter(broker_url=broker.url, shards=SHARDS)
    ids: dict[str, list[str]] = {}
    for _ in range(5):
        for workspace_id in WORKSPACES:
            ids.setdefault(workspace_id, []).append(meter.record(workspace_id, **REQUEST))
    for workspace_id in WORKSPACES:
        ids[workspace_id].append(meter.publish_event(usage_event(workspace_id, f"built-{workspace_id}")))
    meter.flush(20)
    filled = 0
    for key in names.usage_routing_keys(SHARDS):
        found: dict[str, list[str]] = {}
        for event in broker.events(names.queue_of(key)):
            found.setdefault(event["subject"], []).append(event["id"])
        filled += bool(found)
        for workspace_id, events in found.items():
            assert names.usage_routing_key(workspace_id, SHARDS) == key
            assert events == ids.pop(workspace_id)
    assert (ids, filled) == ({}, SHARDS)
    assert broker.events() == []


def test_what_a_process_with_other_shards_left_is_published_too(
    broker: Any, make_meter: Callable[..., Meter], tmp_path: Path
) -> None:
    before = make_meter(broker_url="amqp://guest:guest@127.0.0.1:1/", spool=tmp_path / "shared", shards=64)
    ids = {before.record(workspace_id, **REQUEST) for workspace_id in WORKSPACES}
    before.close(timeout=0)
    after = make_meter(broker_url=broker.url, spool=tmp_path / "shared")
    after.flush(20)
    assert {event["id"] for event in broker.events()} == ids


@pytest.mark.parametrize("shards", [0, -1, names.SHARDS_MAX + 1, "2", 1.5])
def test_an_impossible_number_of_shards_is_refused(tmp_path: Path, shards: Any) -> None:
    with pytest.raises(ConfigurationError, match="shards must be a whole number"):
        Meter(broker_url="amqp://guest:guest@127.0.0.1:1/", spool=tmp_path, shards=shards)


def test_the_environment_names_the_number(
    broker: Any, make_meter: Callable[..., Meter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXIMETER_BROKER_URL", broker.url)
    monkeypatch.setenv("TAXIMETER_SPOOL", str(tmp_path))
    monkeypatch.setenv("TAXIMETER_SHARDS", str(SHARDS))
    broker.declare(*names.usage_routing_keys(SHARDS))
    with Meter.from_env() as meter:
        meter.record("acme", **REQUEST)
    assert len(broker.events(names.queue_of(names.usage_routing_key("acme", SHARDS)))) == 1
    monkeypatch.setenv("TAXIMETER_SHARDS", "many")
    with pytest.raises(ConfigurationError, match="TAXIMETER_SHARDS"):
        Meter.from_env()
