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
from typing import Any

import amqp
import kombu
import psutil
import psycopg
from psycopg import sql

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # the tests' RabbitMQ node serves here too

from servers.rabbitmq import RabbitMQ  # noqa: E402
from taximeter import names  # noqa: E402
from taximeter_cli.embedded.postgres import Postgres  # noqa: E402
from taximeter_cli.embedded.valkey import Valkey  # noqa: E402
from taximeter_db import connect, migrate  # noqa: E402
from taximeter_worker.flags.connecting import connect_flags  # noqa: E402
from taximeter_worker.flags.rebuild import rebuild  # noqa: E402
from taximeter_worker.pricing.loading import seed  # noqa: E402

GIGABYTE = 2**30
# As docs/deployment.md recommends; fsync and synchronous_commit stay on, that is what is measured.
POSTGRES_SETTINGS = {
    "shared_buffers": f"{min(psutil.virtual_memory().total // 4, 8 * GIGABYTE) // 2**20}MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    # Profiles need it; it costs 1 % or so, on both sides of every comparison.
    "shared_preload_libraries": "pg_stat_statements",
    # Nothing else than what is measured should run.
    "autovacuum_naptime": "10min",
}
_TEMPLATE = "bench_template"
__all__ = ["POSTGRES_SETTINGS", "ROOT", "CpuMeter", "Stack", "running_stack", "wait_for"]


class Stack:
    """PostgreSQL, RabbitMQ and Valkey on loopback, each with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.postgres = Postgres(folder / "postgres", settings=POSTGRES_SETTINGS)
        self.valkey = Valkey(folder / "valkey")
        self.rabbitmq = RabbitMQ(folder / "rabbitmq")
        self.folder = folder
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the servers and make the database that all others are copied from."""
        self.postgres.start()
        self.valkey.start()
        self.rabbitmq.start(240)
        self.create(_TEMPLATE, None)
        migrate.upgrade(self.postgres.url(_TEMPLATE))
        with connect.connection(self.postgres.url(_TEMPLATE)) as conn:
            seed(conn)

    def stop(self) -> None:
        for child in self._children:
            _end(child)
        self.rabbitmq.close()
        self.valkey.stop()
        self.postgres.stop("immediate")

    def has(self, name: str) -> bool:
        """Whether there is such a database."""
        with self.admin() as admin:
            return bool(admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone())

    def create(self, name: str, template: str | None = _TEMPLATE) -> None:
        """Make a database: a copy of another, by default of an empty ledger."""
        statement = sql.SQL("CREATE DATABASE {} OWNER taximeter").format(sql.Identifier(name))
        if template is not None:
            # By files: a copy through the log would leave gigabytes of it to whatever is measured next.
            statement += sql.SQL(" TEMPLATE {} STRATEGY file_copy").format(sql.Identifier(template))
        with self.admin() as admin:
            admin.execute(statement)

    def admin(self, name: str = "postgres") -> psycopg.Connection[Any]:
        """A superuser's connection."""
        return psycopg.connect(self.postgres.admin_url(name), autocommit=True)

    def fresh(self, name: str, template: str = _TEMPLATE) -> dict[str, str]:
        """An empty database (or a copy of another), virtual host and cache; returns the settings that lead to them."""
        self.create(name, template)
        return self.around(name)

    def around(self, name: str) -> dict[str, str]:
        """An empty virtual host and cache beside a database that exists; returns the settings that lead to them."""
        with self.valkey.client() as client:
            client.flushall()
        vhost = self.rabbitmq.make_vhost()
        return {
            "TAXIMETER_DATABASE_URL": self.postgres.url(name),
            "TAXIMETER_BROKER_URL": self.rabbitmq.url(vhost),
            "TAXIMETER_REDIS_URL": self.valkey.url(),
            "TAXIMETER_SPOOL": str(self.folder / f"spool-{vhost}"),
        }

    def drop(self, environment: dict[str, str]) -> None:
        """Remove the database and the virtual host of a side that is done, so that they burden no later one."""
        vhost = environment["TAXIMETER_BROKER_URL"].rsplit("/", 1)[1]
        self.rabbitmq.drop_vhost(vhost)
        name = environment["TAXIMETER_DATABASE_URL"].rsplit("/", 1)[1]
        with self.admin() as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        shutil.rmtree(environment["TAXIMETER_SPOOL"], ignore_errors=True)

    def checkpoint(self) -> None:
        """Let every side begin right after a checkpoint: with the most full pages to log, and with no write-back to come."""
        with self.admin() as admin:
            admin.execute("CHECKPOINT")

    def wal_position(self) -> int:
        """Bytes of write-ahead log since the cluster was made."""
        with self.admin() as admin:
            row = admin.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
            return int(row[0]) if row else 0

    def cpu_meter(self, **roles: list[subprocess.Popen[bytes]]) -> CpuMeter:
        """Of these processes and of the servers."""
        return CpuMeter(
            {role: [child.pid for child in children] for role, children in roles.items()}
            | {"broker": [self.rabbitmq.pid], "postgresql": [self.postgres.pid], "valkey": [self.valkey.pid]}
        )

    def spawn(
        self, arguments: list[str], environment: dict[str, str], log: str, *, piped: bool = False
    ) -> subprocess.Popen[bytes]:
        """Start Python with these arguments; ends with the stack. `piped`: its standard streams are ours."""
        with (self.folder / log).open("ab") as output:
            child = subprocess.Popen(
                [sys.executable, *arguments],
                env={**os.environ, **environment},
                cwd=ROOT,
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else output,
                stderr=output,
            )
        self._children.append(child)
        return child

    def workers(self, count: int, environment: dict[str, str]) -> list[subprocess.Popen[bytes]]:
        """Usage workers, each ready to consume, with all flags written."""
        self.warm_flags(environment)
        arguments = ["-m", "celery", "-A", "taximeter_worker", "worker", "--loglevel", "WARNING"]
        started = []
        for number in range(count):
            extra = {"TAXIMETER_METRICS_PORT": "0"}
            if int(environment.get("TAXIMETER_SHARDS", "1")) > 1:
                extra["TAXIMETER_CONSUME_SHARDS"] = str(number)
            started.append(
                self.spawn([*arguments, "-n", f"w{number}@%h"], {**environment, **extra}, f"worker-{number}.log")
            )
        self.wait_for_consumers(environment, count)
        return started

    def warm_flags(self, environment: dict[str, str]) -> None:
        """What a worker would do first, done before the clock runs."""
        with connect.connection(environment["TAXIMETER_DATABASE_URL"]) as conn:
            client = connect_flags(environment["TAXIMETER_REDIS_URL"], 10)
            rebuild(conn, client)
            client.close()

    def wait_for_consumers(self, environment: dict[str, str], count: int, queue: str = names.USAGE_QUEUE) -> None:
        """Wait until a queue, by default that of usage, has this number of consumers."""
        with kombu.Connection(environment["TAXIMETER_BROKER_URL"]) as connection:
            wait_for(lambda: _consumers(connection, queue) >= count, 60, "the workers to consume")

    def end(self, *children: subprocess.Popen[bytes]) -> None:
        """Stop them, in order."""
        for child in children:
            _end(child)


def _consumers(connection: kombu.Connection, queue: str) -> int:
    with connection.channel() as channel:
        try:
            return int(channel.queue_declare(queue, passive=True).consumer_count)
        except amqp.exceptions.NotFound:
            return 0


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
    except BaseException:
        # The folder goes with everything in it; what the processes said would be missed.
        for log in sorted(folder.glob("*.log")):
            print(f"\n-- the end of {log.name}\n{log.read_text(errors='replace')[-1500:]}", file=sys.stderr)
        raise
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
