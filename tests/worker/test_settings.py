"""Settings: read from the environment, refused with the variable's name, documented one by one."""

from __future__ import annotations

import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from taximeter.addresses import BrokerKind
from taximeter_db.errors import ConfigurationError
from taximeter_worker.background.ledger_gauges import LedgerGauges
from taximeter_worker.metrics import Endpoint, Metrics
from taximeter_worker.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"
ADDRESSES = {
    "TAXIMETER_DATABASE_URL": "postgresql://u:hunter2@h/d",
    "TAXIMETER_BROKER_URL": "amqp://u:hunter2@h//",
    "TAXIMETER_REDIS_URL": "redis://:hunter2@h/0",
}


def test_addresses_are_enough_and_stay_secret():
    settings = Settings.from_env(ADDRESSES)
    assert (settings.batch_events_max, settings.minimum_balance) == (5000, Decimal("-0.12"))
    assert "hunter2" not in repr(settings)
    assert settings.broker_kind is BrokerKind.RABBITMQ


@pytest.mark.parametrize("variable", ADDRESSES)
def test_a_missing_address_is_named(variable):
    with pytest.raises(ConfigurationError, match=f"{variable} is not set.*taximeter env"):
        Settings.from_env({name: url for name, url in ADDRESSES.items() if name != variable})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TAXIMETER_DATABASE_URL", "mysql://u:hunter2@h/d"),
        ("TAXIMETER_BROKER_URL", "hunter2"),
        ("TAXIMETER_REDIS_URL", "redis://u:hunter2#rest@h/0"),
        ("TAXIMETER_REDIS_URL", "redis://u:hunter2/rest@h/0"),
        ("TAXIMETER_REDIS_URL", "redis://u:hunter2?rest@h/0"),
        ("TAXIMETER_REDIS_URL", "redis://h/0?socket_timeout=hunter2"),
        ("TAXIMETER_BROKER_URL", "redis://h/0?hunter2=1"),
        ("TAXIMETER_BATCH_EVENTS_MAX", "0"),
        ("TAXIMETER_BATCH_EVENTS_MAX", "many"),
        ("TAXIMETER_BATCH_EVENTS_MAX", "\u0665"),
        ("TAXIMETER_METRICS_PORT", "65536"),
        ("TAXIMETER_DRAIN_SECONDS", "nan"),
        ("TAXIMETER_MINIMUM_BALANCE", "NaN"),
        ("TAXIMETER_MINIMUM_BALANCE", "1e99"),
        ("TAXIMETER_MINIMUM_BALANCE", "0.0000000000001"),
        ("TAXIMETER_MINIMUM_BALANCE", "1"),
        ("TAXIMETER_UNKNOWN_WORKSPACE", "ignore"),
    ],
)
def test_a_value_without_sense_is_refused_by_name(variable, value):
    with pytest.raises(ConfigurationError, match=variable) as refused:
        Settings.from_env({**ADDRESSES, variable: value})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "celery", "client"),
    [
        ("redis://h:1/2", "redis://h:1/2", "redis://h:1/2"),
        ("valkeys://h/2", "rediss://h/2", "rediss://h/2"),
        ("unix:///run/v.sock?db=1", "redis+socket:///run/v.sock?virtual_host=1", "unix:///run/v.sock?db=1"),
        (
            "redis+socket:///run/v.sock?virtual_host=1",
            "redis+socket:///run/v.sock?virtual_host=1",
            "unix:///run/v.sock?db=1",
        ),
        (
            "redis+socket:///run/v.sock?virtual_host=%2F3&socket_timeout=1",
            "redis+socket:///run/v.sock?virtual_host=3&socket_timeout=1",
            "unix:///run/v.sock?db=3&socket_timeout=1",
        ),
        ("valkey://u:p@h/2", "redis://u:p@h/2", "redis://u:p@h/2"),
    ],
)
def test_each_library_gets_its_own_spelling(given, celery, client):
    settings = Settings.from_env({**ADDRESSES, "TAXIMETER_BROKER_URL": given})
    assert settings.broker_kind is BrokerKind.REDIS
    assert settings.broker_kombu_url == celery
    assert settings.broker_redis_url == client


@pytest.mark.parametrize("command", [["-m", "celery", "-A", "taximeter_worker", "worker"], ["-m", "taximeter_worker"]])
def test_a_worker_without_settings_says_so_in_a_sentence(command, environment):
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("taximeter worker: TAXIMETER_DATABASE_URL is not set.")
    assert "Traceback" not in done.stderr


def test_every_metric_is_documented_and_every_documented_one_exists():
    metrics = Metrics()
    metrics.registry.register(LedgerGauges(["acme"]))
    families = [*metrics.registry.collect(), *LedgerGauges(["acme"]).describe()]
    names = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    documented = set(re.findall(r"^\| `(taximeter_\w+)`", (DOCS / "metrics.md").read_text(), re.MULTILINE))
    assert documented == names
    assert all(name.startswith("taximeter_") for name in names)


def test_a_taken_metrics_port_is_said_and_tried_again(free_port_number):
    first, second = (Endpoint(Metrics(), "127.0.0.1", free_port_number) for _ in range(2))
    first.start()
    with pytest.raises(Exception, match="TAXIMETER_METRICS_PORT"):
        second.start()
    assert not second.serving
    first.stop()
    second.start()
    assert second.serving
    second.stop()


@pytest.fixture
def free_port_number() -> int:
    from taximeter_cli.embedded.process import free_port

    return free_port()
