"""The services of the compose file as processes on this machine: its own commands, configuration, environment and checks.

Only addresses differ: names of other containers become loopback ports, and what a container's entry point or a mount
would provide is named here.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from deploy.compose_file import DEPLOY, ROOT, container_instructions, entrypoint
from deploy.watching_files import PROMETHEUS
from servers.rabbitmq import SCRIPTS, RabbitMQ
from taximeter_cli.embedded import accounts, valkey
from taximeter_cli.embedded.postgres import Postgres
from taximeter_cli.embedded.process import LOOPBACK, free_port, spawn, wait_until
from taximeter_db import roles

Service = dict[str, Any]


@functools.cache
def make_secrets() -> ModuleType:
    """`deploy/make_secrets.py` as a module."""
    spec = importlib.util.spec_from_file_location("make_secrets", DEPLOY / "make_secrets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(argv: Sequence[str | Path], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run to the end; the output is text."""
    return subprocess.run(
        [str(part) for part in argv], env=dict(environment), capture_output=True, text=True, check=False, timeout=120
    )


def postgres_settings(service: Service) -> dict[str, str]:
    """The server settings of the command."""
    return dict(option.removeprefix("-c").split("=", 1) for option in service["command"][1:])


def prepare_postgres(server: Postgres, service: Service, environment: Mapping[str, str]) -> None:
    """What the image does on an empty folder: run the mounted script as the superuser, with the service's environment."""
    psql = accounts.binaries(None) / "psql"
    admin = [psql, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={server.admin_url()}"]
    made = "worker, dashboard, metrics, gateway, " + ", ".join(roles.ROLES)
    for undo in ("DROP DATABASE taximeter", f"DROP ROLE taximeter, {made}"):  # the embedded server's own
        done = run([*admin, f"--command={undo}"], environment)
        assert done.returncode == 0, done.stderr
    (script,) = (mount.split(":")[0] for mount in service["volumes"] if "initdb.d" in mount)
    done = run([*admin, f"--file={DEPLOY / script}"], {**environment, **service["environment"]})
    assert done.returncode == 0, done.stderr


def postgres_healthy(server: Postgres, service: Service, environment: Mapping[str, str]) -> bool:
    """The service's own check."""
    program, *arguments = service["healthcheck"]["test"][1:]
    return run([accounts.binaries(None) / program, *arguments, f"--port={server.port}"], environment).returncode == 0


@contextlib.contextmanager
def valkey_server(
    service: Service, folder: Path, environment: Mapping[str, str], secrets: Mapping[str, str]
) -> Iterator[int]:
    """Valkey by the service's own command; gives its port."""
    port = free_port()
    program, *arguments = service["command"]
    assert program == "valkey-server"
    (folder / "users.acl").write_text(
        make_secrets().access_list((DEPLOY / "valkey" / "users.in.acl").read_text(), dict(secrets))
    )
    arguments = [word.replace("/etc/valkey/users.acl", str(folder / "users.acl")) for word in arguments]
    command = [valkey.binary(), *arguments, "--port", str(port), "--bind", LOOPBACK, "--dir", folder]
    process = spawn(command, log=folder / "valkey.log", env=environment, cwd=folder)
    try:
        assert wait_until(lambda: _listens(port), 20)
        yield port
    finally:
        process.terminate()
        process.wait(20)


class ComposeRabbitMQ(RabbitMQ):
    """A node with the repository's configuration, plugins and the service's environment."""

    def __init__(self, folder: Path, service: Service, secrets: Mapping[str, str]) -> None:
        super().__init__(folder)
        self._service = service
        self._secrets = dict(secrets)
        self.port = free_port()  # known before the start, for those that wait for it
        self.prometheus_port = free_port()

    def _prepare(self) -> None:
        super()._prepare()  # the cookie
        mounts = dict(mount.split(":")[:2] for mount in self._service["volumes"] if mount.startswith("."))
        by_target = {target: DEPLOY / source for source, target in mounts.items()}
        shutil.copy(by_target["/etc/rabbitmq/enabled_plugins"], self.folder / "enabled_plugins")
        ours = f"""
            listeners.tcp.1 = {LOOPBACK}:{self.port}
            prometheus.tcp.ip = {LOOPBACK}
            prometheus.tcp.port = {self.prometheus_port}
            # this machine's disk is not the broker's alone
            disk_free_limit.absolute = 50MB
        """
        template = (DEPLOY / "rabbitmq" / "definitions.in.json").read_text()
        (self.folder / "definitions.json").write_text(make_secrets().definitions(template, self._secrets))
        configuration = by_target["/etc/rabbitmq/rabbitmq.conf"].read_text()
        configuration = configuration.replace("/etc/rabbitmq/definitions.json", str(self.folder / "definitions.json"))
        (self.folder / "rabbitmq.conf").write_text(configuration + "\n".join(map(str.strip, ours.splitlines())) + "\n")

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), **self._service.get("environment", {})}

    def _answers(self) -> bool:
        return _listens(self.port) and self.healthy()

    def healthy(self) -> bool:
        """The service's own check."""
        program, *arguments = self._service["healthcheck"]["test"][1:]
        return run([SCRIPTS / program, *arguments], self._environment()).returncode == 0


class Container:
    """A service of our own image: the image's entry point with the service's command and environment.

    Args:
        service: The service, variables replaced.
        addresses: Address of each other container, ``"postgres:5432": "127.0.0.1:…"``.
        environment: What the machine has set.
        log: File for the output; the working directory is a new folder beside it.
    """

    def __init__(
        self, service: Service, addresses: Mapping[str, str], environment: Mapping[str, str], log: Path
    ) -> None:
        self._service = service
        self.log = log
        self.folder = log.with_suffix("")
        self.folder.mkdir()
        self.port = free_port()
        given = dict(service["environment"])
        for name, value in given.items():
            for inside, here in addresses.items():
                given[name] = given[name].replace(f"@{inside}/", f"@{here}/") if value else value
        if "TAXIMETER_METRICS_PORT" in given:
            # two workers share this machine, and a test opens nothing to the network
            given |= {"TAXIMETER_METRICS_HOST": LOOPBACK, "TAXIMETER_METRICS_PORT": str(self.port)}
        self.environment = {**environment, **given}
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """The command, or another one in the same container, to its end."""
        return run(self._argv(command or self._service["command"]), self.environment)

    def start(self) -> None:
        """The command, in the background."""
        argv = self._argv(self._service["command"])
        self._process = spawn(argv, log=self.log, env=self.environment, cwd=self.folder)

    def check(self) -> subprocess.CompletedProcess[str]:
        """The service's own check."""
        copied = dict(
            rest.split() for name, rest in container_instructions() if name == "COPY" and rest.count(" ") == 1
        )
        files = {target: ROOT / source for source, target in copied.items()}
        program, script = self._service["healthcheck"]["test"][1:]
        assert program == "python"
        return run([sys.executable, files[script]], self.environment)

    def wait_for(self, complaint: str) -> None:
        """Wait until the check says this; nothing, if all is well."""
        for _ in range(120):
            if (said := self.check().stderr) == complaint:
                return
            time.sleep(0.5)
        raise AssertionError(f"the check still says {said!r}; the log:\n{self.log.read_text()}")

    def stop(self, seconds: float) -> int:
        """SIGTERM; returns the exit code, or raises after ``seconds``."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(seconds)

    def kill(self) -> None:
        """The end, whatever happened."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)

    @staticmethod
    def _argv(command: Sequence[str]) -> list[str | Path]:
        (program,) = entrypoint()
        return [Path(sys.executable).with_name(program), *command]


@contextlib.contextmanager
def prometheus_server(
    service: Service, targets: Mapping[str, Sequence[int]], folder: Path, environment: Mapping[str, str]
) -> Iterator[int]:
    """Prometheus by the service's own command, with ports of this machine where it would ask the DNS; gives its port."""
    shutil.copytree(PROMETHEUS, folder / "etc")
    config = yaml.safe_load((folder / "etc/prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for job in config["scrape_configs"]:
        if "dns_sd_configs" in job:
            del job["dns_sd_configs"]
            job["static_configs"] = [{"targets": [f"{LOOPBACK}:{port}" for port in targets[job["job_name"]]]}]
    (folder / "etc/prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    words = [word.replace("=/etc/prometheus/", f"={folder}/etc/") for word in service["command"]]
    words = [word.replace("=/prometheus", f"={folder}/data") for word in words]
    command = ["prometheus", *words, f"--web.listen-address={LOOPBACK}:{port}"]
    process = spawn(command, log=folder / "log", env=environment, cwd=folder)
    program, *arguments = service["healthcheck"]["test"][1:]
    check = [word.replace("127.0.0.1:9090", f"{LOOPBACK}:{port}") for word in arguments]
    try:
        healthy = wait_until(lambda: _listens(port) and run([program, *check], environment).returncode == 0, 30)
        assert healthy, (folder / "log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(20)


def tool_urls(ports: Mapping[str, int], secrets: Mapping[str, str]) -> dict[str, str]:
    """What .env.example tells an AI tool to connect to, by secret; ports are those of this machine."""
    example = (DEPLOY / ".env.example").read_text()
    urls = {}
    for url, name in re.findall(r"(\S+://\S*<this>\S*)\n(\w+)=$", example, re.MULTILINE):
        here = re.sub(r"(?<=127\.0\.0\.1:)\d+", lambda port: str(ports.get(port[0], port[0])), url)
        urls[name] = here.replace("<this>", secrets[name])
    return urls


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0
