"""What a worker logs: one line for each change of state, each with version and instance, and nothing but JSON where JSON is asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version

import structlog
from structlog.testing import LogCapture

from taximeter_cli.embedded.logins import WORKER, part_url
from taximeter_cli.embedded.process import free_port
from taximeter_worker import outage
from taximeter_worker.outage import Outage
from waiting import eventually
from workers import Feed, usage


def _captured(monkeypatch) -> list:
    """The lines of an outage from now on, whatever a test before this one made of structlog's configuration."""
    capture = LogCapture()
    logger = structlog.wrap_logger(None, wrapper_class=structlog.stdlib.BoundLogger, processors=[capture])
    monkeypatch.setattr(outage, "log", logger)
    return capture.entries


def test_an_outage_is_logged_when_it_begins_and_when_it_ends(monkeypatch):
    lines = _captured(monkeypatch)
    state = Outage("gone", "back")
    state.ended()
    for number in range(50):
        state.failed(count=2, why=f"reason {number}")
    state.ended(thread="x")
    state.ended()
    assert [line["event"] for line in lines] == ["gone", "back"]
    assert (lines[0]["why"], lines[1]["times"], lines[1]["thread"]) == ("reason 0", 100, "x")
    assert lines[1]["seconds"] >= 0


def test_one_that_lasts_is_remembered(monkeypatch):
    monkeypatch.setattr(outage, "REMIND_SECONDS", 0.0)
    lines = _captured(monkeypatch)
    state = Outage("gone", "back")
    state.failed(why="a")
    state.failed(why="b")
    assert [(line["why"], line.get("times")) for line in lines] == [("a", None), ("b", 2)]


def test_redis_away_is_one_line_and_its_return_another(new_worker, priced_url, valkey_broker_url, own_valkey, ledger):
    flags = own_valkey()
    worker = new_worker(priced_url, valkey_broker_url, flags.url(0)).start()
    feed = Feed(valkey_broker_url)
    feed.send(usage("acme"))
    eventually(lambda: ledger.usages == 1)
    flags.kill()
    for number in range(2, 8):
        feed.send(usage("acme"))
        eventually(lambda number=number: ledger.usages == number)
    assert worker.text().count("'flags_owed'") == 1, worker.text()
    flags.start()
    feed.send(usage("acme"))
    eventually(lambda: "'flags_written_again'" in worker.text() or feed.send(usage("acme")))
    assert f"version='{version('taximeter')}'" in worker.text()
    assert "instance=" in worker.text()


def test_nothing_but_json_where_json_is_asked_for(
    priced_url, valkey_broker_url, redis_url, environment, tmp_path, ledger
):
    """From the first line to the farewell, with what Celery, warnings and a broken setting say."""
    settings = {
        **environment,
        "TAXIMETER_LOG_FORMAT": "json",
        "TAXIMETER_DATABASE_URL": part_url(priced_url, WORKER),
        "TAXIMETER_BROKER_URL": valkey_broker_url,
        "TAXIMETER_REDIS_URL": redis_url,
        "TAXIMETER_METRICS_PORT": str(free_port()),
        "TAXIMETER_DRAIN_SECONDS": "5",
    }
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "taximeter_worker"], env=settings, stdout=out, stderr=out)
        try:
            eventually(lambda: "broker_connected" in log.read_text() and " ready." in log.read_text())
        finally:
            process.terminate()
        assert process.wait(60) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines() if line]
    assert {line["version"] for line in lines} == {version("taximeter")}
    assert len({line["instance"] for line in lines}) == 1
    assert any("shutdown" in line["message"] for line in lines), "Celery's farewell"
