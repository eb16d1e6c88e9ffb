"""`taximeter doctor` finds what is planted, says how to fix it, and finds nothing where all is well."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import amqp
import psycopg
import pytest
import redis
import time_machine
from kombu import Connection

from instances import Instance
from taximeter import names
from taximeter_cli import main
from taximeter_db import flag_debts
from taximeter_worker.consume.brokers.redis import alive_key

Doctor = Callable[[], dict[str, dict[str, Any]]]


@pytest.fixture
def doctor(
    database_url: str,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Doctor:
    """Run it on an installation that is well but for the test servers' speed; returns its checks by name."""
    for name in list(os.environ):
        if name.startswith("TAXIMETER_"):
            monkeypatch.delenv(name)
    broker = urlsplit(redis_url)._replace(path="/1").geturl()
    for name, value in {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "BROKER_URL": broker,
        "SPOOL": str(tmp_path / "spool"),
    }.items():
        monkeypatch.setenv(f"TAXIMETER_{name}", value)
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("INSERT INTO taximeter.price_revisions VALUES (1, now(), 'import genai-prices')")
    with redis.Redis.from_url(broker) as client:
        queues = f"{names.USAGE_QUEUE},{names.PAYMENT_QUEUE}"
        client.hset(names.CONSUMERS, "a-worker", f"host:1 {queues}")
        client.set(alive_key("a-worker"), "1")
    assert _run(monkeypatch, "flags", "rebuild") == 0
    capsys.readouterr()

    def checks() -> dict[str, dict[str, Any]]:
        code = _run(monkeypatch, "doctor", "--json")
        report = json.loads(capsys.readouterr().out)
        assert code == (0 if report["ok"] else 1)
        assert report["ok"] == all(check["ok"] for check in report["checks"])
        for check in report["checks"]:
            assert set(check) == {"name", "ok", "detail", "advice"}
            assert check["detail"]
            assert bool(check["advice"]) == (not check["ok"]), check
        return {check["name"]: check for check in report["checks"]}

    return checks


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["taximeter", *arguments])
    return main.run()


class Planted:
    """What may be wrong with an installation. Each undoes, at its end, what would outlive the test."""

    def __init__(self, database_url: str, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._url, self._client, self._folder, self._monkeypatch = database_url, client, tmp_path, monkeypatch

    def _execute(self, *statements: str) -> None:
        with psycopg.connect(self._url, autocommit=True) as conn:
            for statement in statements:
                conn.execute(statement)

    @contextlib.contextmanager
    def misspelled_variable(self) -> Iterator[None]:
        self._monkeypatch.setenv("TAXIMETER_DRAIN_SECOND", "5")
        yield

    @contextlib.contextmanager
    def no_database(self) -> Iterator[None]:
        self._monkeypatch.setenv("TAXIMETER_DATABASE_URL", "postgresql://x@127.0.0.1:1/x")
        yield

    @contextlib.contextmanager
    def no_redis(self) -> Iterator[None]:
        self._monkeypatch.setenv("TAXIMETER_REDIS_URL", "redis://127.0.0.1:1/0")
        yield

    @contextlib.contextmanager
    def no_broker(self) -> Iterator[None]:
        self._monkeypatch.setenv("TAXIMETER_BROKER_URL", "amqp://127.0.0.1:1//")
        yield

    @contextlib.contextmanager
    def commits_that_are_not_waited_for(self) -> Iterator[None]:
        name = urlsplit(self._url).path[1:]
        self._execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
        yield

    @contextlib.contextmanager
    def newer_schema(self) -> Iterator[None]:
        self._execute("UPDATE taximeter.alembic_version SET version_num = '9999'")
        yield

    @contextlib.contextmanager
    def clock_ahead(self) -> Iterator[None]:
        with time_machine.travel(time.time() + 90):
            yield

    @contextlib.contextmanager
    def worker_without_rights(self) -> Iterator[None]:
        self._execute("REVOKE INSERT ON taximeter.usages FROM taximeter_worker")
        yield

    @contextlib.contextmanager
    def dashboard_with_too_many_rights(self) -> Iterator[None]:
        self._execute("GRANT INSERT ON taximeter.usages TO taximeter_dashboard")
        yield

    @contextlib.contextmanager
    def no_partitions(self) -> Iterator[None]:
        self._execute("DELETE FROM taximeter.usage_partitions WHERE ends_at > now() + interval '3 days'")
        yield

    @contextlib.contextmanager
    def quarantined_event(self) -> Iterator[None]:
        self._execute(
            "INSERT INTO taximeter.quarantine (kind, reason, detail, event, content_type, digest)"
            " VALUES ('usage', 'bad_json', 'd', '\\x00', 't', decode(md5('x'), 'hex'))"
        )
        yield

    @contextlib.contextmanager
    def no_prices(self) -> Iterator[None]:
        self._execute(
            "ALTER TABLE taximeter.price_revisions DISABLE TRIGGER USER; DELETE FROM taximeter.price_revisions"
        )
        yield

    @contextlib.contextmanager
    def old_prices(self) -> Iterator[None]:
        self._execute(
            "ALTER TABLE taximeter.price_revisions DISABLE TRIGGER USER;"
            "UPDATE taximeter.price_revisions SET created_at = now() - interval '200 days'"
        )
        yield

    @contextlib.contextmanager
    def flag_debt(self) -> Iterator[None]:
        with psycopg.connect(self._url, autocommit=True) as conn:
            flag_debts.note(conn, ["acme"])
        yield

    @contextlib.contextmanager
    def keys_that_are_thrown_away(self) -> Iterator[None]:
        self._client.config_set("maxmemory", "512mb")
        self._client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            yield
        finally:
            self._client.config_set("maxmemory-policy", "noeviction")
            self._client.config_set("maxmemory", "0")

    @contextlib.contextmanager
    def cold_flags(self) -> Iterator[None]:
        self._client.delete(names.FLAGS_READY)
        yield

    @contextlib.contextmanager
    def wrong_flag(self) -> Iterator[None]:
        assert _run(self._monkeypatch, "workspace", "set", "acme", "--minimum-balance", "-1") == 0
        self._client.hset(names.flag_key("acme"), "enabled", "0")
        yield

    @contextlib.contextmanager
    def dead_worker(self) -> Iterator[None]:
        with redis.Redis.from_url(os.environ["TAXIMETER_BROKER_URL"]) as client:
            client.delete(alive_key("a-worker"))
        yield

    @contextlib.contextmanager
    def worker_without_payments(self) -> Iterator[None]:
        with redis.Redis.from_url(os.environ["TAXIMETER_BROKER_URL"]) as client:
            client.hset(names.CONSUMERS, "a-worker", f"host:1 {names.USAGE_QUEUE}")
        yield

    @contextlib.contextmanager
    def gateway_that_is_away(self) -> Iterator[None]:
        self._monkeypatch.setenv("TAXIMETER_GATEWAY_URL", "http://127.0.0.1:1")
        yield

    @contextlib.contextmanager
    def stuck_spool(self) -> Iterator[None]:
        (self._folder / "spool").mkdir()
        segment = self._folder / "spool" / "usage-x.ndjson"
        segment.write_text("{}\n")
        os.utime(segment, (time.time() - 3600,) * 2)
        yield


FOUND = {
    "misspelled_variable": ("settings", "Did you mean TAXIMETER_DRAIN_SECONDS?"),
    "no_database": ("postgresql", "cannot be reached"),
    "no_redis": ("redis", "does not answer"),
    "no_broker": ("broker", "refused"),
    "commits_that_are_not_waited_for": ("postgresql durability", "synchronous_commit is off"),
    "newer_schema": ("schema", "9999"),
    "clock_ahead": ("clock", "s apart"),
    "worker_without_rights": ("roles", "taximeter_worker may not book"),
    "dashboard_with_too_many_rights": ("roles", "taximeter_dashboard may book"),
    "no_partitions": ("partitions", "days from now"),
    "quarantined_event": ("quarantine", "1 bad_json"),
    "no_prices": ("prices", "empty"),
    "old_prices": ("prices", "200 days"),
    "flag_debt": ("flag debts", "1 flags"),
    "keys_that_are_thrown_away": ("redis durability", "allkeys-lru"),
    "cold_flags": ("flags complete", "no rebuild"),
    "wrong_flag": ("flags agree", "acme"),
    "dead_worker": ("consumers", names.PAYMENT_QUEUE),
    "worker_without_payments": ("consumers", names.PAYMENT_QUEUE),
    "stuck_spool": ("spool", "60 minutes"),
    "gateway_that_is_away": ("gateway", "does not answer"),
}


@pytest.mark.parametrize("fault", FOUND)
def test_each_misconfiguration_is_found_with_advice(
    fault: str,
    doctor: Doctor,
    database_url: str,
    redis_client: redis.Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    name, words = FOUND[fault]
    before = doctor().get(name)
    with getattr(Planted(database_url, redis_client, tmp_path, monkeypatch), fault)():
        capsys.readouterr()
        after = doctor()[name]
    assert not after["ok"]
    assert words in after["detail"], after
    if name.endswith("durability"):  # the tests' own servers are fast and forgetful
        assert words not in before["detail"]
    else:  # the gateway is asked only where its address is known
        assert before is None if name == "gateway" else before["ok"], before


def test_the_queues_of_rabbitmq_are_looked_at(doctor: Doctor, amqp_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TAXIMETER_BROKER_URL", amqp_url)
    checks = doctor()
    assert names.USAGE_QUEUE in checks["queues"]["detail"]
    assert names.PAYMENT_QUEUE in checks["queues"]["detail"]
    with Connection(amqp_url) as connection:
        channel = connection.default_channel
        channel.queue_declare(names.USAGE_QUEUE, durable=True, auto_delete=False, arguments=names.QUEUE_ARGUMENTS)
        channel.queue_declare(names.PAYMENT_QUEUE, durable=True, auto_delete=False)
        channel.basic_consume(names.USAGE_QUEUE)
        checks = doctor()
        assert checks["queues"]["detail"] == f"absent: {names.TASK_QUORUM_QUEUE}"
        channel.queue_declare(
            names.TASK_QUORUM_QUEUE, durable=True, auto_delete=False, arguments=names.TASK_QUEUE_ARGUMENTS
        )
        channel.basic_consume(names.TASK_QUORUM_QUEUE)
        channel.queue_declare(names.TASK_QUEUE, durable=True, auto_delete=False)
        channel.confirm_select()
        channel.basic_publish_confirm(amqp.Message("left by 0.1.0"), routing_key=names.TASK_QUEUE)
        checks = doctor()
        assert checks["queues"]["ok"]
        assert checks["consumers"]["detail"] == f"without a consumer: {names.PAYMENT_QUEUE}, {names.TASK_QUEUE}"
        assert checks["broker durability"]["detail"].endswith(f": {names.PAYMENT_QUEUE}")
        with contextlib.suppress(amqp.AMQPError):
            channel.close()


def test_an_instance_that_runs_is_well(running: Instance):
    report = running.json("doctor")
    assert report["ok"], report
    assert len(report["checks"]) >= 18
    assert "Everything is well." in running("doctor").stdout
