"""Budgets from the booking to the tool: the worker's parts, the flag Redis, and a meter."""

from __future__ import annotations

from worker_fixtures import feed, ledger, new_runtime, new_worker, priced_url, runtime, valkey_broker_url, worker

__all__ = ["feed", "ledger", "new_runtime", "new_worker", "priced_url", "runtime", "valkey_broker_url", "worker"]
