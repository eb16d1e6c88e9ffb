"""Started before `taximeter migrate` has run: every part of today says so on the schema of 0.1.0, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dashboard_factory import bearer, make_settings
from fault_injection.previous import unpack
from servers import require
from taximeter import Meter
from taximeter_dashboard.app import create_app
from taximeter_db import migrate
from waiting import eventually
from workers import Feed, Ledger, WorkerProcess, set_prices

ADVICE = "Run `taximeter migrate`"


@pytest.fixture
def old_database_url(empty_database_url: str, environment: dict[str, str], tmp_path: Path) -> str:
    """A database as 0.1.0 makes it."""
    release = unpack(tmp_path / "previous")
    require("the project's history, out of which 0.1.0 is taken,", release, "git fetch --unshallow")
    assert release is not None
    release.command("migrate", environment={**environment, "TAXIMETER_DATABASE_URL": empty_database_url})
    return empty_database_url


def test_what_comes_before_the_migration_waits_and_is_booked_after_it(
    old_database_url: str,
    broker_url: str,
    redis_url: str,
    new_worker: Callable[..., WorkerProcess],
    environment: dict[str, str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    feed = Feed(broker_url)  # the queues are there, as after 0.1.0
    with Meter(broker_url=broker_url, spool=tmp_path / "spool") as meter:
        meter.record("acme", tool="chat", provider="p", model="m", quantities={"input_tokens": 1000})
        meter.flush(60)
    worker = new_worker(old_database_url, broker_url, redis_url).start()
    eventually(lambda: ADVICE in worker.text(), what="the worker says what it waits for")
    command = [sys.executable, "-m", "taximeter_cli.entry", "workspace", "show", "acme"]
    variables = {**environment, "TAXIMETER_DATABASE_URL": old_database_url}
    shown = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=120)
    assert (shown.returncode, ADVICE in shown.stderr, "Traceback" in shown.stderr) == (1, True, False)
    app = create_app(make_settings(old_database_url))
    client = TestClient(app, base_url="http://dash.example", raise_server_exceptions=False)
    assert client.get("/api/v1/workspaces/acme/summary", headers=bearer()).status_code == 503
    app.state.app_context.close()
    assert ADVICE in caplog.text
    assert feed.waiting() >= 1, "it takes nothing that it cannot book; canaries may wait beside it"

    migrate.upgrade(old_database_url)
    set_prices(old_database_url)
    ledger = Ledger(old_database_url)
    eventually(lambda: ledger.usages == 1, 120, "the worker goes on by itself")
    assert ledger.quarantined() == {}
    ledger.verify()
    ledger.close()
    feed.close()
    assert worker.stop() == 0
    assert "Traceback" not in worker.text()
