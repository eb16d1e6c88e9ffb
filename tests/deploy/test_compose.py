"""`deploy/compose.yaml`: references hold, nothing is open to the network, secrets are asked for, limits fit together."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.compose_file import (
    DEPLOY,
    ROOT,
    VALKEY_BROKER,
    MissingSecretError,
    all_secret_names,
    composed,
    load,
    seconds,
    secret_names,
)
from taximeter import limits
from taximeter_cli.embedded import postgres as embedded_postgres
from taximeter_cli.embedded import valkey as embedded_valkey
from taximeter_worker.settings import Settings

SECRETS = {name: f"secret-{name.lower()}" for name in secret_names()}
MADE = ("rabbitmq/definitions.json", "valkey/users.acl")
SERVICE_KEYS = {
    *("build", "cap_add", "cap_drop", "command", "depends_on", "deploy", "environment", "healthcheck", "hostname"),
    *(
        "image",
        "init",
        "logging",
        "networks",
        "ports",
        "profiles",
        "pull_policy",
        "read_only",
        "restart",
        "security_opt",
    ),
    *("shm_size", "stop_grace_period", "stop_signal", "tmpfs", "volumes"),
}
SERVICES = sorted(load()["services"])


def _service(name: str) -> dict[str, Any]:
    found = composed(SECRETS)["services"][name]
    assert isinstance(found, dict)
    return found


def test_all_parts_are_there():
    assert SERVICES == [
        "cli",
        "dashboard",
        "gateway",
        "grafana",
        "migrate",
        "postgres",
        "prometheus",
        "rabbitmq",
        "valkey",
        "worker",
    ]


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_well_formed(name: str):
    service = _service(name)
    assert set(service) <= SERVICE_KEYS
    assert isinstance(service.get("command", []), list), "a list: no shell in between"
    assert all(isinstance(value, str) for value in service.get("environment", {}).values()), "YAML must not guess"
    assert set(service["networks"]) <= set(load()["networks"])
    # a short name: whoever runs this decides on the registry; `taximeter` is built here
    assert re.fullmatch(r"taximeter|[a-z]+(/[a-z]+)?:v?\d+(\.\d+)*", service["image"])


def test_our_image_is_built_once_and_never_fetched():
    ours = {name: one for name, one in composed(SECRETS)["services"].items() if one["image"] == "taximeter"}
    assert {name for name, one in ours.items() if "build" in one} == {"worker"}, "two builds of one name collide"
    assert {one["pull_policy"] for one in ours.values()} == {"never"}
    build = ours["worker"]["build"]
    assert ((DEPLOY / build["context"]).resolve(), ROOT / build["dockerfile"]) == (ROOT, DEPLOY / "Containerfile")


@pytest.mark.parametrize("name", SERVICES)
def test_service_has_no_more_rights_than_it_needs(name: str):
    service = _service(name)
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert set(service.get("cap_add", [])) <= {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}
    if service["image"] == "taximeter":
        assert service["read_only"] is True
        assert "cap_add" not in service


@pytest.mark.parametrize("name", SERVICES)
def test_only_loopback_is_published(name: str):
    for port in _service(name).get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), port


@pytest.mark.parametrize("name", SERVICES)
def test_mounts_exist_and_can_be_read_by_the_container_s_user(name: str):
    for mount in _service(name).get("volumes", []):
        source, target, *mode = mount.split(":")
        assert target.startswith("/")
        if not source.startswith("."):
            assert source in load()["volumes"]
            continue
        assert mode == ["ro"], f"{source} is part of the repository"
        path = DEPLOY / source
        if source.removeprefix("./") in MADE:
            continue  # by make_secrets.py, whose own test looks at their modes
        assert path.exists(), source
        for one in [path, *path.rglob("*")]:
            wanted = 0o055 if one.is_dir() else 0o044
            assert one.stat().st_mode & wanted == wanted, one


@pytest.mark.parametrize("name", SERVICES)
def test_dependencies_can_be_met(name: str):
    services = composed(SECRETS)["services"]
    for other, wanted in services[name].get("depends_on", {}).items():
        if wanted["condition"] == "service_healthy":
            assert services[other]["healthcheck"]["test"][0] == "CMD"
        else:
            assert wanted["condition"] == "service_completed_successfully"
            assert services[other]["restart"] == "no"


def test_all_but_the_migration_are_checked_limited_and_started_again():
    for name, service in composed(SECRETS)["services"].items():
        if name not in {"migrate", "cli"}:
            assert service["restart"] == "unless-stopped"
            assert service["healthcheck"]["test"][0] == "CMD", "no shell"
            assert service["deploy"]["resources"]["limits"]["memory"]


@pytest.mark.parametrize("name", secret_names())
def test_missing_secret_is_said(name: str):
    with pytest.raises(MissingSecretError, match=rf"{name} is missing a value: run make_secrets\.py in this folder"):
        # There the gateway does without RabbitMQ's user, which nothing else asks for.
        composed({**SECRETS, name: ""}, *(() if name == "RABBITMQ_GATEWAY_PASSWORD" else (VALKEY_BROKER,)))


def test_the_example_asks_for_all_secrets_and_holds_none():
    example = (DEPLOY / ".env.example").read_text()
    assert sorted(re.findall(r"^(\w+)=$", example, re.MULTILINE)) == all_secret_names()
    assert not re.search(r"^\w+=.", example, re.MULTILINE)


def test_the_secrets_are_never_committed():
    ignored = subprocess.run(["git", "check-ignore", "-q", "deploy/.env"], cwd=ROOT, check=False)
    assert ignored.returncode in {0, 128}, "128: this is not a git repository"


def test_make_secrets_makes_good_secrets_and_keeps_them(tmp_path: Path):
    for source in (".env.example", "make_secrets.py", "rabbitmq/definitions.in.json", "valkey/users.in.acl"):
        (tmp_path / source).parent.mkdir(exist_ok=True)
        shutil.copy(DEPLOY / source, tmp_path / source)

    def make() -> dict[str, str]:
        subprocess.run([sys.executable, "make_secrets.py"], cwd=tmp_path, check=True)
        return {name: (tmp_path / name).read_text() for name in (".env", *MADE)}

    files = make()
    made = dict(re.findall(r"^(\w+)=(.*)$", files[".env"], re.MULTILINE))
    assert sorted(made) == all_secret_names()
    assert len(set(made.values())) == len(made)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32,}", value) for value in made.values()), "safe within URLs"
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    for name in MADE:
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o644, "a container's own user reads it"
        assert not any(value in files[name] for value in made.values()), "hashes only"
    assert make() == files, "a second run changes nothing"
    (tmp_path / ".env").write_text(
        re.sub(r"^GRAFANA_PASSWORD=.*$", "GRAFANA_PASSWORD=", files[".env"], flags=re.MULTILINE)
    )
    again = dict(re.findall(r"^(\w+)=(.*)$", make()[".env"], re.MULTILINE))
    assert {name for name in made if again[name] != made[name]} == {"GRAFANA_PASSWORD"}


def test_each_part_has_a_database_user_of_its_own():
    services = composed(SECRETS)["services"]
    users = {
        name: re.findall(r"postgresql://(\w+):", service["environment"]["TAXIMETER_DATABASE_URL"])
        for name, service in services.items()
        if "TAXIMETER_DATABASE_URL" in service.get("environment", {})
    }
    assert users == {
        "migrate": ["taximeter"],
        "cli": ["taximeter"],
        "worker": ["worker"],
        "dashboard": ["dashboard"],
        "gateway": ["gateway"],
    }
    assert services["worker"]["environment"]["TAXIMETER_METRICS_DATABASE_URL"].startswith("postgresql://metrics:")
    flags = {name: service.get("environment", {}).get("TAXIMETER_REDIS_URL") for name, service in services.items()}
    for part in ("worker", "dashboard", "gateway"):
        assert flags[part] == f"redis://{part}:{SECRETS[f'VALKEY_{part.upper()}_PASSWORD']}@valkey:6379/0"


def test_valkey_can_be_the_broker():
    for path in DEPLOY.glob("compose.*.yaml"):
        assert "!" not in re.sub(r"#.*", "", path.read_text()), "the tests merge mappings only"
    services = composed(SECRETS, VALKEY_BROKER)["services"]
    assert services["rabbitmq"]["profiles"] == ["rabbitmq"], "started by nothing"
    for service in services.values():
        assert service.get("depends_on", {}).get("rabbitmq", {}).get("required", False) is False
    environment = services["worker"]["environment"]
    assert (
        environment.pop("TAXIMETER_BROKER_URL") == f"redis://worker:{SECRETS['VALKEY_WORKER_PASSWORD']}@valkey:6379/1"
    )
    assert environment.items() <= _service("worker")["environment"].items()


def test_the_worker_has_time_to_drain():
    worker = _service("worker")
    settings = Settings.from_env(worker["environment"])
    assert seconds(worker["stop_grace_period"]) >= settings.drain_seconds + 20


def test_the_worker_can_be_scaled():
    # a port, a name or a host name can be had once only
    assert not {"ports", "container_name", "hostname"} & set(_service("worker"))


def test_every_variable_of_ours_is_a_setting():
    known = {"TAXIMETER_" + name.upper() for name in Settings.__dataclass_fields__}
    for name in ("migrate", "worker"):
        assert set(_service(name)["environment"]) <= known


def test_postgres_is_as_durable_and_as_discreet_as_the_embedded_one():
    given = dict(option.removeprefix("-c").split("=") for option in _service("postgres")["command"][1:])
    sized_otherwise = {"shared_buffers", "max_wal_size", "checkpoint_timeout", "log_line_prefix"}
    for setting, value in embedded_postgres.SETTINGS.items():
        assert setting in sized_otherwise or given[setting] == value, setting


def test_valkey_is_as_durable_as_the_embedded_one():
    words = _service("valkey")["command"][1:]
    given = dict(zip(words[::2], words[1::2], strict=True))
    for setting in ("appendonly", "appendfsync", "maxmemory-policy", "proto-max-bulk-len"):
        assert given[f"--{setting}"] == embedded_valkey.SETTINGS[setting]


def test_rabbitmq_takes_what_the_worker_may_refuse():
    conf = dict(re.findall(r"^(\S+) = (\S+)$", (DEPLOY / "rabbitmq" / "rabbitmq.conf").read_text(), re.MULTILINE))
    assert int(conf["max_message_size"]) > limits.MESSAGE_BYTES_MAX
