"""Small periodic work: partitions ahead of time, the metrics port, the listed workspaces' gauges."""

from __future__ import annotations

import time
from typing import Any

import structlog
from psycopg import Connection

from taximeter_db.ledger import partitions
from taximeter_worker.background.ledger_gauges import LedgerGauges
from taximeter_worker.errors import MetricsPortTakenError
from taximeter_worker.metrics import Endpoint, Metrics

log = structlog.get_logger(__name__)

UPKEEP_SECONDS = 5.0
PARTITIONS_SECONDS = 600.0
"""Between two looks at the partitions; one that failed is tried again in the next round."""


class Upkeep:
    """Partitions (beside the beat's task, which may not run), the metrics port if it was taken, the listed workspaces' gauges."""

    def __init__(self, gauges: LedgerGauges, endpoint: Endpoint, metrics: Metrics) -> None:
        self._gauges = gauges
        self._endpoint = endpoint
        self._metrics = metrics
        self._partitions_at = time.monotonic()

    def __call__(self, conn: Connection[Any]) -> None:
        """One round."""
        if not self._endpoint.serving:
            try:
                self._endpoint.start()
            except MetricsPortTakenError as error:
                log.warning("metrics_not_served", why=str(error))
        self._gauges.refresh_listed(conn)
        if time.monotonic() >= self._partitions_at:
            # told before they are made, which may fail because somebody is in the way
            self._metrics.partitions_ahead.set(partitions.ahead_seconds(conn))
            partitions.ensure(conn)
            self._metrics.partitions_ahead.set(partitions.ahead_seconds(conn))
            self._partitions_at = time.monotonic() + PARTITIONS_SECONDS
