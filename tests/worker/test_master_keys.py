"""A worker with another master key than the ledger's does not start, and books nothing where it is already running."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from taximeter_db import connect
from taximeter_db.crypto import key_register, master_keys
from waiting import eventually
from workers import Feed, Ledger, WorkerProcess, usage

MINE, THEIRS = master_keys.new(), master_keys.new()


@pytest.mark.parametrize("module", [["taximeter_worker"], ["celery", "-A", "taximeter_worker", "worker"]])
def test_a_worker_with_disjoint_master_keys_is_refused_at_start(
    new_worker: Callable[..., WorkerProcess], priced_url: str, valkey_broker_url: str, redis_url: str, module: list[str]
):
    with connect.connection(priced_url) as conn:
        key_register.check_in(conn, master_keys.parse(THEIRS))
    environment = new_worker(priced_url, valkey_broker_url, redis_url)._environment
    done = subprocess.run(
        [sys.executable, "-m", *module],
        env={**environment, "TAXIMETER_MASTER_KEY": MINE},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert master_keys.parse(THEIRS).current in done.stderr
    assert master_keys.parse(MINE).current in done.stderr
    assert "Traceback" not in done.stderr
    assert MINE not in done.stdout + done.stderr


def test_a_worker_that_could_not_ask_at_start_books_nothing_with_the_wrong_key(
    new_runtime, priced_url: str, valkey_broker_url
):
    with connect.connection(priced_url) as conn:
        key_register.check_in(conn, master_keys.parse(THEIRS))
    runtime = new_runtime(valkey_broker_url, master_key=master_keys.parse(MINE))
    feed, ledger = Feed(valkey_broker_url), Ledger(priced_url)
    feed.send(usage("acme"))
    eventually(runtime.metrics.database_errors._value.get, what="a refusal")
    assert ledger.usages == 0
    with connect.connection(priced_url) as conn:
        key_register.abandon(conn, master_keys.parse(THEIRS).current)
    eventually(lambda: ledger.usages, what="the booking, once the key may be used")
    ledger.verify()
    feed.close()
    ledger.close()
