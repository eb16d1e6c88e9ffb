"""Messages that the broker refuses for their size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taximeter import Meter, SetAsideError, names

REQUEST: dict[str, Any] = {"tool": "chat", "quantities": {"requests": 1}}
MEBIBYTE = 1024 * 1024


@pytest.fixture(params=["valkey", "rabbitmq"])
def strict_broker(
    request: pytest.FixtureRequest,
    own_valkey: Callable[..., Any],
    own_rabbitmq: Callable[[], Any],
    broker_at: Callable[[str], Any],
) -> Any:
    """A broker that takes a mebibyte and no more."""
    if request.param == "valkey":
        return broker_at(own_valkey({"proto-max-bulk-len": str(MEBIBYTE)}).url(1))
    node = own_rabbitmq()
    node.ctl("eval", f"application:set_env(rabbit, max_message_size, {MEBIBYTE}).")
    broker = broker_at(node.url())
    broker.declare(names.USAGE_ROUTING_KEY, names.PAYMENT_ROUTING_KEY)
    return broker


def test_an_event_too_large_for_the_broker_is_set_aside_and_the_others_go_on(
    strict_broker: Any, make_meter: Callable[..., Meter], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    meter = make_meter(broker_url=strict_broker.url, event_bytes_max=4 * MEBIBYTE)
    good, bad = [], []
    for _ in range(3):
        good += [meter.record("acme", **REQUEST) for _ in range(40)]
        bad.append(meter.record("acme", **REQUEST, input="x" * (MEBIBYTE + 100)))
        bad.append(meter.record("acme", **REQUEST, input="x" * (3 * MEBIBYTE)))
        good.append(meter.record("acme", **REQUEST, input="y" * (MEBIBYTE // 2)))
    with pytest.raises(SetAsideError, match=r"taximeter publish FILE") as caught:
        meter.flush(30)
    assert list(dict.fromkeys(event["id"] for event in strict_broker.events())) == good
    assert all(str(path) in str(caught.value) for path in caught.value.files)
    kept = [json.loads(line) for path in caught.value.files for line in path.read_bytes().splitlines()]
    assert [event["id"] for event in kept] == bad
    assert {path.stat().st_mode & 0o777 for path in caught.value.files} == {0o600}
    stats = meter.stats()
    assert (stats.spooled_events, stats.set_aside, stats.confirmed) == (0, len(bad), len(good))
    assert "xxx" not in caplog.text
    meter.flush(20)  # said once

    meter.close()
    after = make_meter(broker_url=strict_broker.url)
    last = after.record("acme", **REQUEST)
    after.flush(20)  # a restart is not held up either
    assert [event["id"] for event in strict_broker.events()] == [last]
    assert all(path.exists() for path in caught.value.files)


def test_batches_that_are_too_large_are_packed_smaller(strict_broker: Any, make_meter: Callable[..., Meter]) -> None:
    meter = make_meter(broker_url=strict_broker.url, batch_bytes_max=8 * MEBIBYTE, linger_seconds=0.2)
    ids = [meter.record("acme", **REQUEST, input="z" * 100_000) for _ in range(60)]
    meter.flush(30)
    bodies = list(strict_broker.messages())
    assert max(map(len, bodies)) <= MEBIBYTE
    assert list(dict.fromkeys(event["id"] for body in bodies for event in json.loads(body))) == ids
    assert meter.stats().set_aside == 0
