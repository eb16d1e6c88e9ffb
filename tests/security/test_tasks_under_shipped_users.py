"""Celery's beat and tasks under the shipped users of both brokers: what is sent runs, and its success is a metric."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from taximeter_cli.embedded.valkey import BROKER_DATABASE
from waiting import eventually
from workers import Feed, Ledger, WorkerProcess, set_prices, usage

DONE = 'taximeter_task_runs_total{{outcome="succeeded",task="taximeter.{}"}}'
SUCCESS_AT = 'taximeter_task_last_success_timestamp_seconds{{task="taximeter.{}"}}'


@pytest.fixture(params=["rabbitmq", "valkey"])
def shipped_broker(request: pytest.FixtureRequest) -> str:
    """The broker's address as the shipped user ``worker``."""
    if request.param == "rabbitmq":
        rabbitmq_user: Callable[[str], str] = request.getfixturevalue("rabbitmq_user")
        return rabbitmq_user("worker")
    valkey_user: Callable[[str, int], str] = request.getfixturevalue("valkey_user")
    return valkey_user("worker", BROKER_DATABASE)


def test_the_beat_s_tasks_run(
    shipped_broker: str, new_worker: Callable[..., WorkerProcess], priced_url: str, redis_url: str, ledger: Ledger
):
    worker = new_worker(priced_url, shipped_broker, redis_url).start()
    eventually(lambda: worker.connected)
    feed = Feed(shipped_broker)
    feed.send(usage("acme", model="new"))
    eventually(lambda: ledger.quarantined() == {"price_missing": 1})
    before = worker.metrics()[SUCCESS_AT.format("roll_up")]
    set_prices(priced_url, "new")  # sends the replay
    eventually(lambda: ledger.usages == 1, what="the replay")
    eventually(lambda: worker.metrics()[DONE.format("roll_up")] >= 1, what="the beat's roll-up")
    assert worker.metrics()[SUCCESS_AT.format("roll_up")] > before
    assert worker.metrics()[DONE.format("replay_price_missing")] >= 1
    assert worker.stop() == 0
    assert "Traceback" not in worker.text()
    feed.close()
