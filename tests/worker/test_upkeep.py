"""Partitions are made days ahead by any worker, and a metric tells how many days there are, also while somebody is in the way."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from taximeter_db import connect
from taximeter_db.ledger import partitions
from taximeter_worker.background.ledger_gauges import LedgerGauges
from taximeter_worker.background.upkeep import Upkeep
from taximeter_worker.metrics import Endpoint, Metrics

DAY = 86_400


def _only_the_present_slice(owner: psycopg.Connection) -> None:
    later = owner.execute(
        "DELETE FROM taximeter.usage_partitions WHERE starts_at > now() RETURNING to_char(starts_at AT TIME ZONE 'UTC', 'YYYYMMDD')"
    ).fetchall()
    assert later
    for (start,) in later:
        owner.execute(f"DROP TABLE taximeter.usages_p{start}, taximeter.usage_payloads_p{start}")


def test_a_worker_makes_partitions_ahead_and_says_for_how_long_they_last(
    database_url: str, role_url: Callable[[str], str]
):
    metrics = Metrics()
    upkeep = Upkeep(LedgerGauges([]), Endpoint(metrics, "127.0.0.1", 0), metrics)

    def told() -> float:
        return metrics.registry.get_sample_value("taximeter_partitions_ahead_seconds") or 0.0

    with connect.connection(database_url) as owner, connect.connection(role_url("worker")) as worker:
        _only_the_present_slice(owner)
        few = partitions.ahead_seconds(owner)
        assert few < 32 * DAY
        with psycopg.connect(database_url) as vacuum:
            vacuum.execute("LOCK TABLE taximeter.usages IN SHARE UPDATE EXCLUSIVE MODE")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                upkeep(worker)
            assert 0 < told() <= few, "the alert needs it most while they cannot be made"
        upkeep(worker)
        assert partitions.ahead_seconds(owner) > 59 * DAY
        assert told() > 59 * DAY
