"""`taximeter up`: starts, stops, dies and comes back without a loss and without a trace."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import redis

from instances import COMMAND, Instance, environment, gone
from servers import require
from taximeter_cli.embedded.accounts import may_enter
from taximeter_cli.embedded.process import Account, wait_until

NewInstance = Callable[..., Instance]


def balance(instance: Instance, workspace: str) -> str:
    return str(instance.json("workspace", "show", workspace)["balance"])


def test_up_runs_everything_durably_and_stops_without_a_trace(new_instance: NewInstance):
    instance = new_instance()
    instance.start()
    pids = instance.pids()
    assert set(pids) == {"PostgreSQL", "Valkey", "worker", "dashboard", "gateway"}
    with psycopg.connect(instance.addresses["TAXIMETER_DATABASE_URL"]) as connection:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            assert connection.execute(f"SHOW {setting}").fetchone() == ("on",)
        assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
        assert connection.execute("SELECT count(*) > 1000 FROM taximeter.price_entries").fetchone() == (True,)
    with redis.Redis.from_url(instance.addresses["TAXIMETER_BROKER_URL"]) as client:
        assert client.config_get("append*")["appendfsync"] == "always"
    with urllib.request.urlopen(instance.addresses["TAXIMETER_METRICS_URL"], timeout=5) as answer:
        assert b"taximeter_" in answer.read()
    for name in ("state.json", "worker.log"):
        assert (instance.data / name).stat().st_mode & 0o077 == 0, name

    assert instance("credit", "acme", "12.50", "--id", "p1").returncode == 0
    ports = {name: value for name, value in instance.addresses.items() if name != "sign_in"}
    assert instance.signal(signal.SIGINT) == 0, instance.told
    assert "Stopping: gateway, dashboard, worker, Valkey, PostgreSQL." in instance.told
    assert gone(pids, 0)
    assert "no instance of Taximeter runs" in instance("env").stderr

    instance.start()
    assert {**instance.addresses, "sign_in": ""} == {**ports, "sign_in": ""}  # the link is a new one each time
    assert balance(instance, "acme") == "12.5"
    assert instance.signal(signal.SIGTERM) == 0


def test_passwords_keep_strangers_out(running: Instance):
    address = running.addresses["TAXIMETER_DATABASE_URL"]
    password = address.split(":")[2].split("@")[0]
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(address.replace(password, "guess"))
    with pytest.raises(redis.AuthenticationError):
        redis.Redis.from_url("redis://" + running.addresses["TAXIMETER_REDIS_URL"].split("@")[1]).ping()
    arguments = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert password not in arguments


def test_the_addresses_of_valkey_are_taken_by_every_client(running: Instance):
    for name in ("TAXIMETER_BROKER_URL", "TAXIMETER_REDIS_URL"):
        address = urlsplit(running.addresses[name])
        assert address.username == "default"
        with redis.Redis(address.hostname, address.port, username="default", password=address.password) as client:
            assert client.ping()
        require("redis-cli", shutil.which("redis-cli"), "install redis-tools")
        done = subprocess.run(
            ["redis-cli", "-u", running.addresses[name], "PING"], capture_output=True, text=True, check=True
        )
        assert done.stdout == "PONG\n", done.stdout


def test_each_part_has_a_user_of_its_own_with_no_more_than_its_rights(running: Instance):
    environments = {}
    for name in ("worker", "dashboard"):
        raw = Path(f"/proc/{running.pids()[name]}/environ").read_bytes().decode()
        environments[name] = dict(entry.split("=", 1) for entry in raw.split("\0") if "=" in entry)
    worker, page = environments["worker"], environments["dashboard"]
    users = {
        "worker": worker["TAXIMETER_DATABASE_URL"],
        "metrics": worker["TAXIMETER_METRICS_DATABASE_URL"],
        "dashboard": page["TAXIMETER_DATABASE_URL"],
    }
    for user, url in users.items():
        with psycopg.connect(url) as connection:
            assert connection.info.user == user
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("DELETE FROM taximeter.payments")
    for url in (worker["TAXIMETER_REDIS_URL"], worker["TAXIMETER_BROKER_URL"]):
        with redis.Redis.from_url(url) as client, pytest.raises(redis.exceptions.NoPermissionError):
            client.flushdb()
    owner = running.addresses["TAXIMETER_DATABASE_URL"]
    assert owner not in (*worker.values(), *page.values())


def test_env_gives_shell_exports_and_json(running: Instance):
    addresses = running.json("env")
    assert {name: running.addresses[name] for name in addresses} == addresses
    assert set(addresses) == {
        f"TAXIMETER_{part}_URL" for part in ("DATABASE", "BROKER", "REDIS", "METRICS", "DASHBOARD", "GATEWAY")
    }
    command = " ".join(COMMAND)
    shell = subprocess.run(
        ["sh", "-c", f'eval "$({command} env)"; printf %s "$TAXIMETER_REDIS_URL"'],
        cwd=running.folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert shell.stdout == addresses["TAXIMETER_REDIS_URL"]


def test_a_second_up_says_who_is_there_and_what_to_do(running: Instance):
    second = running("up")
    assert second.returncode == 1
    assert f"process {running.process.pid}" in second.stderr
    assert "kill" in second.stderr
    assert "--data-dir" in second.stderr
    assert running.json("env")


def test_a_killed_supervisor_leaves_nothing_that_the_next_does_not_take_over(new_instance: NewInstance):
    instance = new_instance()
    instance.start()
    assert instance("credit", "acme", "3", "--id", "before").returncode == 0
    pids = instance.pids()
    instance.signal(signal.SIGKILL)
    assert gone(pids)  # on Linux the kernel tells them
    assert "no instance of Taximeter runs" in instance("env").stderr
    instance.start()
    assert balance(instance, "acme") == "3"
    assert instance.json("verify")["ok"]


@pytest.mark.parametrize("name", ["PostgreSQL", "Valkey", "worker"])
def test_a_part_that_dies_is_started_again(running: Instance, name: str):
    old = running.pids()[name]
    os.kill(old, signal.SIGKILL)
    assert wait_until(lambda: running.pids().get(name, old) != old, 60), running.told
    assert f"{name} has ended by itself" in running.told
    done = running("credit", "acme", "1", "--id", f"after {name}")
    assert done.returncode == 0, done.stderr + running.told
    assert running.json("verify")["ok"]


def test_a_stop_during_the_start_leaves_nothing_running(new_instance: NewInstance):
    instance = new_instance()
    instance.launch()
    assert wait_until(lambda: "Valkey is ready" in instance.told, 60)
    pids = instance.pids()
    assert instance.signal(signal.SIGTERM) == 0, instance.told
    assert gone({**pids, **instance.pids()}, 0)


def test_up_as_an_ordinary_user(new_instance: NewInstance):
    if os.geteuid() != 0:
        pytest.skip("every other test here runs as an ordinary user already")
    require("setpriv", shutil.which("setpriv"), "install util-linux")
    nobody = 65534
    rights: tuple[str, ...] = ()
    if not all(may_enter(Account("nobody", nobody, nobody), Path(place)) for place in (sys.base_prefix, sys.prefix)):
        # this interpreter lives below a private home: keep the right to read, and nothing else of root's
        rights = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    instance = new_instance(
        "setpriv", f"--reuid={nobody}", f"--regid={nobody}", "--clear-groups", *rights, owner=nobody
    )
    instance.start()
    owners = {Path(f"/proc/{pid}").stat().st_uid for pid in instance.pids().values()}
    assert owners == {nobody}
    assert instance.data.stat().st_mode & 0o777 == 0o700
    assert instance("credit", "acme", "1", "--id", "a").returncode == 0
    assert instance.signal(signal.SIGINT) == 0, instance.told


def test_demo_has_something_to_look_at(new_instance: NewInstance):
    instance = new_instance()
    instance.start("--demo")

    def used() -> bool:
        done = instance("workspace", "show", "lumen-labs", "--json")
        return done.returncode == 0 and '"usage_count": 0' not in done.stdout

    assert wait_until(used, 60), (instance.data / "demo.log").read_text()
    assert instance.json("quarantine", "list")["open"] == {}
    assert instance.signal(signal.SIGINT) == 0
