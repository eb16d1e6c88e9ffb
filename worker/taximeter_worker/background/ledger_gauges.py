"""Gauges that come from the database: read now and then by the housekeeper, never by a scrape."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import psycopg
from prometheus_client.core import GaugeHistogramMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from psycopg import Connection
from sqlalchemy import func, select

from taximeter_db.core import Statement
from taximeter_db.money import to_pico
from taximeter_db.sql import statement

REFRESH_SECONDS = 15.0
DUTY_PARTS = 20
"""At most this part of the time (one in 20) is spent on reading, however large the tables."""
BALANCE_BOUNDS_USD = tuple(
    map(Decimal, ["-1000", "-100", "-10", "-1", "-0.12", "0", "1", "10", "100", "1000", "10000", "100000"])
)
# width_bucket counts the bounds at or below a number, Prometheus those at or above it: so both sides are negated.
_NEGATED = [-bound for bound in reversed(BALANCE_BOUNDS_USD)]

# All but the listed workspaces comes from functions that sum and count: the role for metrics may call these and no more.
_OVERVIEW = statement("metrics_overview")
_QUARANTINE = statement("metrics_quarantine")
_FLAG_DEBTS = statement("metrics_flag_debts")
_QUARANTINE_BYTES = Statement(select(func.taximeter.metrics_quarantine_bytes()))
_NOTICES = statement("metrics_notices")
_OVERDRAFT = Statement(select(func.taximeter.metrics_overdraft()))
_BUDGETS = statement("metrics_budgets")
_LISTED = statement("read_listed_workspaces")


class _Snapshot(msgspec.Struct):
    statuses: dict[str, int] = msgspec.field(default_factory=dict)
    buckets: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BALANCE_BOUNDS_USD) + 1))
    balance: Any = 0
    payments: Any = 0
    cost: Any = 0
    quarantined: dict[str, int] = msgspec.field(default_factory=dict)
    quarantine_bytes: int = 0
    flag_debts: int = 0
    notices: tuple[int, int, float] = (0, 0, 0.0)
    """Pending, dead, and the age of the oldest pending one in seconds."""
    overdraft: Any = 0
    budgets: dict[str, int] = msgspec.field(default_factory=dict)


class LedgerGauges(Collector):
    """The last snapshot, as Prometheus wants it. Empty until the first ``refresh``.

    Args:
        workspaces: Those that are listed by name.
        overdrawn: Told how far the deepest balance lies below its minimum, in picodollars.
    """

    def __init__(self, workspaces: Sequence[str] = (), overdrawn: Callable[[int], None] | None = None) -> None:
        self._workspaces = list(workspaces)
        self._overdrawn = overdrawn
        self._lock = threading.Lock()
        self._snapshot: _Snapshot | None = None
        self._next_at = self._listed_next_at = 0.0
        self._listed: list[tuple[str, Any, bool]] = []

    def refresh(self, conn: Connection[Any]) -> None:
        """Read a new snapshot if it is time to."""
        started = time.monotonic()
        if started < self._next_at:
            return
        snapshot = _Snapshot(statuses={"sufficient": 0, "low": 0, "insufficient": 0})
        for status, bucket, count, balance, payments, cost in conn.execute(_OVERVIEW, [_NEGATED]):
            snapshot.statuses[status] = snapshot.statuses.get(status, 0) + count
            snapshot.buckets[bucket] += count
            snapshot.balance += balance
            snapshot.payments += payments
            snapshot.cost += cost
        snapshot.quarantined = dict(conn.execute(_QUARANTINE).fetchall())
        with contextlib.suppress(psycopg.errors.UndefinedFunction):  # a schema before 0015
            snapshot.quarantine_bytes = _QUARANTINE_BYTES.scalar(conn)
        with contextlib.suppress(psycopg.errors.UndefinedFunction):  # a schema before 0026
            snapshot.overdraft = _OVERDRAFT.scalar(conn)
            if self._overdrawn is not None:
                self._overdrawn(to_pico(snapshot.overdraft))
        snapshot.budgets = {"within": 0, "warned": 0, "exceeded": 0, **dict(conn.execute(_BUDGETS).fetchall())}
        snapshot.flag_debts = conn.execute(_FLAG_DEBTS).fetchone()[0]  # type: ignore[index]  # count(*) always returns a row
        snapshot.notices = conn.execute(_NOTICES).fetchone()  # type: ignore[assignment]  # counts always make a row
        with self._lock:
            self._snapshot = snapshot
        now = time.monotonic()
        self._next_at = now + max(REFRESH_SECONDS, DUTY_PARTS * (now - started))

    def refresh_listed(self, conn: Connection[Any]) -> None:
        """Read the listed workspaces again, if there are any and it is time to; takes the worker's rights."""
        if self._workspaces and time.monotonic() >= self._listed_next_at:
            self._listed = conn.execute(_LISTED, [self._workspaces]).fetchall()
            self._listed_next_at = time.monotonic() + REFRESH_SECONDS

    def describe(self) -> list[Metric]:
        """What will be collected, so that a registry can refuse a second metric of the same name."""
        return list(self._families(_Snapshot()))

    def collect(self) -> Iterator[Metric]:
        """The last snapshot."""
        with self._lock:
            snapshot = self._snapshot
        if snapshot is not None:
            yield from self._families(snapshot)

    def _families(self, snapshot: _Snapshot) -> Iterator[Metric]:
        statuses = GaugeMetricFamily("taximeter_workspaces", "Workspaces by status.", labels=["status"])
        for status, count in snapshot.statuses.items():
            statuses.add_metric([status], count)
        yield statuses
        running, buckets = 0, []
        for bound, count in zip([*map(str, BALANCE_BOUNDS_USD), "+Inf"], snapshot.buckets, strict=True):
            running += count
            buckets.append((bound, running))
        yield GaugeHistogramMetricFamily(
            "taximeter_balance_usd", "Balances of all workspaces.", buckets=buckets, gsum_value=float(snapshot.balance)
        )
        yield GaugeMetricFamily("taximeter_ledger_payments_usd", "Payments, all workspaces.", float(snapshot.payments))
        yield GaugeMetricFamily("taximeter_ledger_cost_usd", "Cost of usage, all workspaces.", float(snapshot.cost))
        quarantined = GaugeMetricFamily("taximeter_quarantine_open", "Open quarantine entries.", labels=["reason"])
        for reason, count in snapshot.quarantined.items():
            quarantined.add_metric([reason], count)
        yield quarantined
        yield GaugeMetricFamily(
            "taximeter_quarantine_bytes", "What the quarantine takes on PostgreSQL's disk.", snapshot.quarantine_bytes
        )
        budgets = GaugeMetricFamily("taximeter_budgets", "Budgets by state.", labels=["state"])
        for state, count in snapshot.budgets.items():
            budgets.add_metric([state], count)
        yield budgets
        yield GaugeMetricFamily("taximeter_stale_flags", "Workspaces whose flag is still owed.", snapshot.flag_debts)
        pending, dead, oldest = snapshot.notices
        yield GaugeMetricFamily("taximeter_notices_pending", "Notices that are still to be delivered.", pending)
        yield GaugeMetricFamily("taximeter_notices_dead", "Notices that were given up and not replayed.", dead)
        yield GaugeMetricFamily("taximeter_notice_oldest_seconds", "Age of the oldest pending notice.", oldest)
        yield GaugeMetricFamily(
            "taximeter_overdraft_usd", "How far the deepest balance is below its minimum.", float(snapshot.overdraft)
        )
        balances = GaugeMetricFamily("taximeter_workspace_balance_usd", "Balance, listed ones.", labels=["workspace"])
        enabled = GaugeMetricFamily("taximeter_workspace_enabled", "AI enabled, listed ones.", labels=["workspace"])
        for workspace_id, balance, is_enabled in self._listed:
            balances.add_metric([workspace_id], float(balance))
            enabled.add_metric([workspace_id], int(is_enabled))
        yield balances
        yield enabled
