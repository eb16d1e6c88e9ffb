"""Status at its boundaries, each way, through a real worker: database, flag and the SDK's answer agree."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from taximeter import Meter, names
from waiting import eventually
from workers import Feed, Ledger, WorkerProcess, payment, usage

NANO = "0.000000001"


@pytest.fixture
def meter(broker_url: str, redis_url: str, tmp_path: Path):
    with Meter(broker_url=broker_url, redis_url=redis_url, spool=tmp_path / "spool") as made:
        yield made


def agree(meter: Meter, client: redis.Redis, ledger: Ledger, balance: str, status: str) -> None:
    """Wait for a balance; then everything that can be asked must give this status."""
    enabled = status != "insufficient"
    eventually(lambda: client.hget(names.balance_key("acme"), "balance") == balance)
    assert client.hmget(names.flag_key("acme"), "enabled", "status") == ["1" if enabled else "0", status]
    assert ledger.balance("acme") == balance
    assert ledger.one("SELECT status FROM taximeter.workspace_balance") == status
    assert ledger.one("SELECT ai_enabled FROM taximeter.workspace_balance") is enabled
    eventually(lambda: meter.enabled("acme") is enabled)
    eventually(lambda: meter.status("acme").status == status)


def test_every_boundary_each_way(
    worker: WorkerProcess, feed: Feed, meter: Meter, ledger: Ledger, redis_client: redis.Redis
):
    eventually(lambda: redis_client.exists(names.FLAGS_READY))
    eventually(lambda: meter.enabled("acme"))  # never seen: enabled
    down = lambda amount, number: feed.pay(payment("acme", f"-{amount}", payment_id=number, kind="adjustment"))  # noqa: E731
    up = lambda amount, number: feed.pay(payment("acme", amount, payment_id=number))  # noqa: E731
    up("1", "1")
    agree(meter, redis_client, ledger, "1", "sufficient")
    # 0 is sufficient, a nano-dollar below it is low
    feed.send(usage("acme", 1_000_000))
    agree(meter, redis_client, ledger, "0", "sufficient")
    down(NANO, "2")
    agree(meter, redis_client, ledger, "-0.000000001", "low")
    up(NANO, "3")
    agree(meter, redis_client, ledger, "0", "sufficient")
    # exactly the minimum is low and enabled, a nano-dollar below it disables
    feed.send(usage("acme", 120_000))
    agree(meter, redis_client, ledger, "-0.12", "low")
    down(NANO, "4")
    agree(meter, redis_client, ledger, "-0.120000001", "insufficient")
    up(NANO, "5")
    agree(meter, redis_client, ledger, "-0.12", "low")
    down("5", "6")
    agree(meter, redis_client, ledger, "-5.12", "insufficient")
    up("10", "7")
    agree(meter, redis_client, ledger, "4.88", "sufficient")
    ledger.verify()


def test_what_the_sdk_records_is_booked_and_disables(
    worker: WorkerProcess, meter: Meter, ledger: Ledger, redis_client: redis.Redis
):
    eventually(lambda: worker.connected)
    for _ in range(500):
        meter.record("acme", tool="chat", provider="p", model="m", quantities={"input_tokens": 1000}, input="hello")
    meter.flush(timeout=20)
    eventually(lambda: ledger.usages == 500)
    assert ledger.balance("acme") == "-0.5"
    eventually(lambda: meter.enabled("acme") is False)
    assert ledger.one("SELECT count(*) FROM taximeter.usage_payloads") == 500
