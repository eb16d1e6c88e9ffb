"""Real servers for a benchmark, with durable settings, and the CPU they use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # the tests' RabbitMQ node serves here too

from servers.rabbitmq import RabbitMQ  # noqa: E402
from taximeter_cli.embedded.postgres import Postgres  # noqa: E402
from taximeter_cli.embedded.process import free_port  # noqa: E402
from taximeter_cli.embedded.valkey import Valkey  # noqa: E402
from taximeter_db import connect, migrate  # noqa: E402
from taximeter_worker.pricing import seed  # noqa: E402

# As docs/deployment.md recommends; fsync and synchronous_commit stay on, that is what is measured.
POSTGRES_SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB", "checkpoint_timeout": "15min"}
__all__ = ["ROOT", "CpuMeter", "Stack", "running_stack", "wait_for"]


class Stack:
    """PostgreSQL, RabbitMQ and Valkey on loopback, each with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.postgres = Postgres(folder / "postgres", settings=POSTGRES_SETTINGS)
        self.valkey = Valkey(folder / "valkey")
        self.rabbitmq = RabbitMQ(folder / "rabbitmq")
        self.folder = folder
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self.postgres.start()
        self.valkey.start()
        self.rabbitmq.start()

    def stop(self) -> None:
        for child in self._children:
            _end(child)
        self.rabbitmq.close()
        self.valkey.stop()
        self.postgres.stop("fast")

    def fresh(self, name: str) -> dict[str, str]:
        """An empty database, virtual host and cache; returns the settings that lead a process to them."""
        with psycopg.connect(self.postgres.admin_url(), autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE DATABASE {} OWNER taximeter").format(sql.Identifier(name)))
        database_url = self.postgres.url(name)
        migrate.upgrade(database_url)
        with connect.connection(database_url) as conn:
            seed(conn)
        with self.valkey.client() as client:
            client.flushall()
        vhost = self.rabbitmq.make_vhost()
        return {
            "TAXIMETER_DATABASE_URL": database_url,
            "TAXIMETER_BROKER_URL": self.rabbitmq.url(vhost),
            "TAXIMETER_REDIS_URL": self.valkey.url(),
            "TAXIMETER_SPOOL": str(self.folder / f"spool-{name}"),
        }

    def spawn(self, arguments: list[str], environment: dict[str, str], log: str) -> subprocess.Popen[bytes]:
        with (self.folder / log).open("ab") as output:
            child = subprocess.Popen(
                [sys.executable, *arguments], env={**os.environ, **environment}, cwd=ROOT, stdout=output, stderr=output
            )
        self._children.append(child)
        return child

    def workers(self, count: int, environment: dict[str, str]) -> list[subprocess.Popen[bytes]]:
        """Usage workers, each ready to consume."""
        arguments = ["-m", "celery", "-A", "taximeter_worker", "worker", "--loglevel", "WARNING"]
        started = []
        for number in range(count):
            extra = {"TAXIMETER_METRICS_PORT": str(free_port())}
            started.append(
                self.spawn([*arguments, "-n", f"w{number}@%h"], {**environment, **extra}, f"worker-{number}.log")
            )
        vhost = environment["TAXIMETER_BROKER_URL"].rsplit("/", 1)[1]
        wait_for(lambda: self.consumers(vhost) >= count, 60, "the workers to consume")
        return started

    def consumers(self, vhost: str) -> int:
        """Consumers on the usage queue."""
        import kombu

        with kombu.Connection(self.rabbitmq.url(vhost)) as connection, connection.channel() as channel:
            try:
                return int(channel.queue_declare("taximeter.usage", passive=True).consumer_count)
            except Exception:  # noqa: BLE001  (not declared yet)
                return 0

    def end(self, *children: subprocess.Popen[bytes]) -> None:
        for child in children:
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextmanager
def running_stack() -> Iterator[Stack]:
    folder = Path(tempfile.mkdtemp(prefix="txb-", dir="/tmp"))
    folder.chmod(0o711)
    stack = Stack(folder)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll until it holds.

    Raises:
        TimeoutError: It did not, in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.01)


class CpuMeter:
    """CPU seconds of process trees between two moments, by role."""

    def __init__(self, roles: dict[str, list[int]]) -> None:
        self._roles = roles
        self._before = self._read()

    def used(self) -> dict[str, float]:
        now = self._read()
        return {role: now[role] - self._before[role] for role in self._roles}

    def _read(self) -> dict[str, float]:
        return {role: sum(map(_tree_seconds, pids)) for role, pids in self._roles.items()}


def _tree_seconds(pid: int) -> float:
    total = 0.0
    try:
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            try:
                times = member.cpu_times()
            except psutil.Error:
                continue
            # children_user/system: those that ended and were waited for
            total += times.user + times.system + times.children_user + times.children_system
    except psutil.Error:
        pass
    return total
