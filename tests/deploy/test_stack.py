"""The compose file at work: its own commands, settings, environment and checks, as processes on real servers."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from deploy.compose_file import VALKEY_BROKER, all_secret_names, composed, seconds
from deploy.compose_servers import (
    ComposeRabbitMQ,
    Container,
    postgres_healthy,
    postgres_settings,
    prepare_postgres,
    prometheus_server,
    tool_urls,
    valkey_server,
)
from deploy.watching_files import everything_asked_for, queries, rules
from servers import rabbitmq as rabbitmq_server
from servers import require
from taximeter import Meter
from taximeter_cli.embedded.postgres import Postgres
from waiting import eventually

# A whole system each, on a machine that may be busy.
pytestmark = pytest.mark.timeout(600)


class Stack:
    """Servers and workers of one test, with the services they were made from."""

    def __init__(self, environment: Mapping[str, str], folder: Path, *overrides: Path) -> None:
        self.secrets = {name: secrets.token_urlsafe(24) for name in all_secret_names()}
        self.services: dict[str, Any] = composed(self.secrets, *overrides)["services"]
        self.environment = environment
        self.folder = folder
        self.addresses: dict[str, str] = {}
        self._containers: list[Container] = []
        self.cleanup = ExitStack()

    def at(self, inside: str, port: int) -> None:
        """Where the container's address is on this machine."""
        self.addresses[inside] = f"127.0.0.1:{port}"

    def container(self, name: str) -> Container:
        made = Container(
            self.services[name], self.addresses, self.environment, self.folder / f"{name}-{len(self._containers)}.log"
        )
        self._containers.append(made)
        self.cleanup.callback(made.kill)
        return made

    def migrate(self) -> None:
        """What Compose does at every ``up``."""
        done = self.container("migrate").run()
        assert done.returncode == 0, done.stdout + done.stderr

    def start_worker(self) -> Container:
        """A worker, once its own check is content."""
        worker = self.container("worker")
        worker.start()
        worker.wait_for("")
        return worker

    def tool(self) -> dict[str, str]:
        """Addresses for an AI tool on the host, by the secret in them."""
        return tool_urls(
            {at.rpartition(":")[2]: int(here.rpartition(":")[2]) for at, here in self.addresses.items()}, self.secrets
        )


@pytest.fixture
def new_stack(
    tmp_path: Path, environment: dict[str, str], own_postgres: Callable[..., Postgres]
) -> Iterator[Callable[..., Stack]]:
    """Factory of stacks with PostgreSQL and Valkey running, and the schema migrated as Compose would."""
    with ExitStack() as cleanup:

        def make(*overrides: Path) -> Stack:
            stack = Stack(environment, tmp_path, *overrides)
            cleanup.callback(stack.cleanup.close)
            service = stack.services["postgres"]
            server = own_postgres(postgres_settings(service))
            prepare_postgres(server, service, environment)
            assert postgres_healthy(server, service, environment)
            stack.at("postgres:5432", server.port)
            valkey_folder = tmp_path / "valkey"
            valkey_folder.mkdir()
            stack.at(
                "valkey:6379",
                cleanup.enter_context(
                    valkey_server(stack.services["valkey"], valkey_folder, environment, stack.secrets)
                ),
            )
            stack.migrate()
            return stack

        yield make


def _publish_and_see_it_booked(stack: Stack, broker_url: str, redis_url: str) -> None:
    quantities = {"input_tokens": 1200, "output_tokens": 300}
    with Meter(broker_url=broker_url, redis_url=redis_url, spool=stack.folder / "spool", timeout_seconds=2) as meter:
        for _ in range(3):
            meter.record("acme", tool="chat", provider="openai", model="gpt-4o", quantities=quantities)
        meter.flush(timeout=20)
        eventually(
            lambda: meter.status("acme").status == "low", seconds=60, what="the flag of a workspace that owes a little"
        )
        assert meter.enabled("acme")
        meter.record("acme", tool="chat", provider="openai", model="gpt-4o", quantities={"output_tokens": 100_000})
        meter.flush(timeout=20)
        eventually(lambda: not meter.enabled("acme"), seconds=60, what="the flag of a workspace that owes a dollar")


def _stop(stack: Stack, *workers: Container) -> None:
    for worker in workers:
        assert worker.stop(seconds(stack.services["worker"]["stop_grace_period"])) == 0, worker.log.read_text()
        assert list(worker.folder.iterdir()) == [], "the container's file system is read-only"
        gone = worker.check()
        assert gone.returncode == 1
        assert re.fullmatch(r"unhealthy: no metrics on port \d+: .+\n", gone.stderr)


def _booked(stack: Stack) -> None:
    verified = stack.container("cli").run("verify", "--json")
    report = json.loads(verified.stdout)
    assert (verified.returncode, report["ok"], report["usages"]) == (0, True, 4), verified.stderr
    with psycopg.connect(stack.container("migrate").environment["TAXIMETER_DATABASE_URL"]) as connection:
        # gpt-4o: 2.50 for a million in, 10 for a million out
        query = "SELECT balance::text, status FROM taximeter.workspace_balance"
        assert connection.execute(query).fetchall() == [("-1.018000000000", "insufficient")]
        (superuser,) = connection.execute("SELECT usesuper FROM pg_user WHERE usename = current_user").fetchone() or ()
        assert superuser is False
        assert connection.execute("SHOW fsync").fetchone() == ("on",)


def test_on_rabbitmq_with_two_workers(new_stack: Callable[..., Stack], server_folder: Path):
    require("RabbitMQ", rabbitmq_server.installed(), "install rabbitmq-server")
    stack = new_stack()
    folder = server_folder / f"compose-{secrets.token_hex(3)}"
    node = ComposeRabbitMQ(folder, stack.services["rabbitmq"], stack.secrets)
    stack.cleanup.callback(node.close)
    stack.at("rabbitmq:5672", node.port)
    early = stack.container("worker")
    early.start()
    early.wait_for("unhealthy: the worker is alive but does not receive from its broker\n")
    node.start()
    early.wait_for("")
    workers = [early, stack.start_worker()]
    urls = stack.tool()
    _publish_and_see_it_booked(stack, urls["RABBITMQ_TOOL_PASSWORD"], urls["VALKEY_TOOL_PASSWORD"])
    ports = {
        "taximeter-worker": [worker.port for worker in workers],
        "taximeter-gateway": [],
        "rabbitmq": [node.prometheus_port],
    }
    _every_metric_is_served(ports)
    _prometheus_watches(stack, ports)
    assert node.healthy()
    stack.migrate()
    _stop(stack, *workers)
    _booked(stack)


def test_on_valkey(new_stack: Callable[..., Stack]):
    stack = new_stack(VALKEY_BROKER)
    worker = stack.start_worker()
    redis_url = stack.tool()["VALKEY_TOOL_PASSWORD"]
    _publish_and_see_it_booked(stack, redis_url.removesuffix("/0") + "/1", redis_url)
    _stop(stack, worker)
    _booked(stack)


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def _every_metric_is_served(ports: Mapping[str, list[int]]) -> None:
    def families() -> set[str]:
        text = _get(f"http://127.0.0.1:{ports['taximeter-worker'][0]}/metrics")
        found = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
        series = {
            name + end for name, kind in found.items() if kind == "histogram" for end in ("_bucket", "_sum", "_count")
        }
        return series | set(found)

    # The gateway serves its own; tests/gateway holds them to the documents.
    asked = {name for name in everything_asked_for() if not name.startswith("taximeter_gateway_")}
    eventually(lambda: asked <= families(), seconds=60, what="all metrics, those of the ledger too")
    assert "rabbitmq_queue_messages_ready" in _get(f"http://127.0.0.1:{ports['rabbitmq'][0]}/metrics")


def _prometheus_watches(stack: Stack, ports: Mapping[str, list[int]]) -> None:
    require("Prometheus", shutil.which("prometheus"), "install prometheus")
    folder = stack.folder / "prometheus"
    folder.mkdir()
    with prometheus_server(stack.services["prometheus"], ports, folder, stack.environment) as port:

        def ask(path: str, **parameters: str) -> Any:
            answer = json.loads(_get(f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))
            assert answer["status"] == "success"
            return answer["data"]

        def value(query: str) -> float | None:
            result = ask("query", query=query)["result"]
            return float(result[0]["value"][1]) if result else None

        def alerts() -> list[dict[str, Any]]:
            return [rule for group in ask("rules")["groups"] for rule in group["rules"]]

        eventually(lambda: value('sum(up{job="taximeter-worker"})') == 2, 60)
        eventually(lambda: value('sum(up{job="rabbitmq"})') == 1, 60)
        eventually(lambda: value('sum(taximeter_events_total{kind="usage",outcome="booked"})') == 4, 60)
        eventually(lambda: value('max(taximeter_workspaces{status="insufficient"})') == 1, 60)
        assert value("sum(taximeter_cost_usd_total)") == pytest.approx(1.018)
        assert [rule["name"] for rule in alerts()] == [rule["alert"] for rule in rules()]
        # "pending" before the first scrape; a false alarm would stay
        eventually(lambda: {rule["state"] for rule in alerts()} == {"inactive"}, 60, "an alert without a cause")
        for query in queries():
            ask("query", query=query)
