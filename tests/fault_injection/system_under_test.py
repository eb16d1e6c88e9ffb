"""The system under fault: PostgreSQL, flag Redis and broker of its own, two workers, some producers, a proxy on every way.

``producers ─proxy─ broker ─proxy─ workers ─proxy─ PostgreSQL``; both sides reach the flags through proxies of their own.
PostgreSQL's data and the producers' spool lie on small disks that can be filled. The flag Redis, and RabbitMQ for the
workers, have the shipped users and rights. The first worker has a clock that can be set, the second a network cable that can
be pulled out. The system begins as the release before this one where the project's history is at hand.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg
import redis

from deploy.compose_servers import make_secrets as load_make_secrets
from fault_injection.audit import Lane, differing_flags
from fault_injection.clock import JumpingClock
from fault_injection.clock import available as clock_is_available
from fault_injection.disks import SmallDisk
from fault_injection.holds import HOLD_SECONDS_MAX, Spenders, environment_of_tools
from fault_injection.previous import unpack
from fault_injection.probes import CORRECTED_TOKENS, CorrectedUsages, Probe
from fault_injection.producer import accepted
from proxy import Proxy
from servers.namespace import Namespace
from servers.namespace import possible as namespaces_are_possible
from servers.rabbitmq import RabbitMQ
from servers.shipped_redis import REDIS, VALKEY, ShippedRedis
from taximeter import Meter
from taximeter_cli.embedded.logins import METRICS, WORKER, part_url
from taximeter_cli.embedded.postgres import Postgres
from taximeter_cli.embedded.process import LOOPBACK, free_port
from taximeter_cli.embedded.valkey import BROKER_DATABASE, Valkey
from taximeter_cli.errors import EmbeddedError
from taximeter_db.migrate import upgrade
from waiting import eventually
from workers import WorkerProcess, set_prices

DEPLOY = Path(__file__).parents[2] / "deploy"
PRICE_WORDS = [
    "--provider",
    "p",
    "--model",
    "m",
    "--unit",
    "input_tokens",
    "--price",
    "1",
    "--per",
    "1000000",
    "--from",
    "2020-01-01T00:00:00Z",
]
"""What `workers.set_prices` sets, for a command line."""


class SystemUnderTest:
    """Starts everything. Make it and call its methods in the main thread: servers end with the thread that started them.

    Args:
        folder: Short and private.
        broker: "rabbitmq" or "valkey".
        seed: Decides what the producers send.
        rate: Events a second of all producers together.
        producers: How many.
        environment: Of the children, without settings of Taximeter's.
        database_megabytes: Size of PostgreSQL's disk.
    """

    def __init__(
        self,
        folder: Path,
        broker: str,
        *,
        seed: int,
        rate: float,
        producers: int,
        environment: Mapping[str, str],
        database_megabytes: int,
    ) -> None:
        self.seed = seed
        self.broker_kind = broker
        # Whole seconds, in the past: the time in an event is a function of its number.
        self.began_at = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
        self.folder = folder
        self._rate = rate / producers
        self._environment = dict(environment)
        self._closing: list[Callable[[], Any]] = []
        self.database_disk = self._keep(SmallDisk(folder / "d", database_megabytes))
        self.spool_disk = self._keep(SmallDisk(folder / "s", 64))
        self.postgres = Postgres(self.database_disk.folder / "pg", settings={"shared_buffers": "64MB"})
        self._closing.append(lambda: self.postgres.stop("immediate"))
        self.postgres.start()
        self.previous = unpack(folder / "previous")
        self._install()
        make_secrets = load_make_secrets()
        self._passwords = make_secrets.passwords((DEPLOY / ".env.example").read_text(), "")
        (folder / "f").mkdir()
        program = REDIS if broker == "rabbitmq" and REDIS else VALKEY
        self.flags = ShippedRedis(program, folder / "f", make_secrets, self._passwords)
        self._closing.append(lambda: self.flags.kill())  # noqa: PLW0108 -- whichever it is by then
        self.flags.start()
        self.losses: list[float] = []
        """When the flag Redis may have lost something, by the machine's clock."""
        self.broker: RabbitMQ | Valkey = RabbitMQ(folder / "b") if broker == "rabbitmq" else Valkey(folder / "b")
        self._closing.append(self.broker.close if isinstance(self.broker, RabbitMQ) else self.broker.kill)
        self.broker.start()
        if isinstance(self.broker, RabbitMQ):
            users = (DEPLOY / "rabbitmq" / "definitions.in.json").read_text()
            self.broker.api("POST", "definitions", json.loads(make_secrets.definitions(users, self._passwords)))
        self.cable = Namespace() if namespaces_are_possible() else None
        if self.cable:
            self._closing.append(self.cable.close)
        self.clock = JumpingClock(folder) if clock_is_available() else None
        self.proxies = {
            "producers to broker": self._proxy(self.broker_url),
            "workers to broker": self._proxy(self.broker_url, at_cable=True),
            "workers to PostgreSQL": self._proxy(self.postgres.url(), at_cable=True),
            "workers to flags": self._proxy(self.flags.url("worker"), at_cable=True),
            "producers to flags": self._proxy(self.flags.url("tool")),
        }
        self.workers = [self._worker(number) for number in range(2)]
        for worker in self.workers:
            worker.start(**(self.previous.variables if self.previous else {}))
        self.workers_are_up()
        if isinstance(self.broker, RabbitMQ):
            self.broker.let_queues_settle()
        self.producers: dict[int, subprocess.Popen[bytes]] = {}
        self.probes = {lane: Probe(self, lane) for lane in ("probe-1", "probe-2", "probe-3")}
        self.corrected = CorrectedUsages(self)
        for number in range(producers):
            self.start_producer(number)
        self.spenders = Spenders(self)
        self.spenders.start()

    def _install(self) -> None:
        if self.previous is None:
            self.migrate()
            set_prices(self.postgres.url())
            return
        environment = {**self._environment, "TAXIMETER_DATABASE_URL": self.postgres.url()}
        self.previous.command("migrate", environment=environment)
        self.previous.command("prices", "set", *PRICE_WORDS, environment=environment)

    def migrate(self) -> None:
        """Bring the database to this release's schema."""
        upgrade(self.postgres.url())

    def workers_are_up(self) -> None:
        """Wait until every worker has received, or has ended by itself."""
        for worker in self.workers:
            eventually(lambda worker=worker: worker.connected or not worker.running, 120, "a worker is up")

    def _keep(self, disk: SmallDisk) -> SmallDisk:
        self._closing.append(disk.close)
        return disk

    @property
    def broker_url(self) -> str:
        """The broker's own address."""
        return self.broker.url() if isinstance(self.broker, RabbitMQ) else self.broker.url(BROKER_DATABASE)

    @property
    def _workers_broker_url(self) -> str:
        if isinstance(self.broker, Valkey):
            return self.broker_url
        return self.broker_url.replace("guest:guest@", f"worker:{self._passwords['RABBITMQ_WORKER_PASSWORD']}@")

    def _proxy(self, url: str, *, at_cable: bool = False) -> Proxy:
        parts = urlsplit(url)
        listen = self.cable.host if at_cable and self.cable else LOOPBACK
        proxy = Proxy(parts.hostname or "", parts.port or 0, listen=listen)
        self._closing.append(proxy.close)
        return proxy

    # -- parts ------------------------------------------------------------------------------------------------------

    def _worker(self, number: int) -> WorkerProcess:
        database_url = self.proxies["workers to PostgreSQL"].url(self.postgres.url())
        settings = {
            "TAXIMETER_DATABASE_URL": part_url(database_url, WORKER),
            "TAXIMETER_METRICS_DATABASE_URL": part_url(database_url, METRICS),
            "TAXIMETER_BROKER_URL": self.proxies["workers to broker"].url(self._workers_broker_url),
            "TAXIMETER_REDIS_URL": self.proxies["workers to flags"].url(self.flags.url("worker")),
            "TAXIMETER_METRICS_PORT": str(free_port()),
            # Small batches: more commits, flags and acknowledgements to die between.
            "TAXIMETER_BATCH_EVENTS_MAX": "1000",
            "TAXIMETER_HOLD_SECONDS_MAX": str(HOLD_SECONDS_MAX),
        }
        if number == 0 and self.clock:
            settings |= self.clock.variables
        prefix = self.cable.prefix if number == 1 and self.cable else ()
        log = self.folder / f"worker-{number}.log"
        worker = WorkerProcess({**self._environment, **settings}, log, prefix)
        self._closing.append(worker.kill)
        return worker

    def start_producer(self, number: int) -> None:
        """Start this producer; it goes on where its journal ends."""
        command = [sys.executable, "-m", "fault_injection.producer", str(self.seed), str(number)]
        command += [self.began_at.isoformat(), str(self._rate), str(self._journal(number))]
        with (self.folder / f"producer-{number}.log").open("ab") as log:
            process = subprocess.Popen(command, env=self.tool_settings(), stdout=log, stderr=log)
        self.producers[number] = process
        self._closing.append(process.kill)

    def tool_settings(self) -> dict[str, str]:
        """The environment of a tool's process."""
        return {
            **environment_of_tools(self._environment),
            "TAXIMETER_BROKER_URL": self.proxies["producers to broker"].url(self.broker_url),
            "TAXIMETER_REDIS_URL": self.proxies["producers to flags"].url(self.flags.url("tool")),
            "TAXIMETER_SPOOL": str(self.spool_disk.folder / "spool"),
        }

    def _journal(self, number: int) -> Path:
        return self.folder / f"producer-{number}.journal"

    def accepted(self) -> dict[int, int]:
        """How many events each producer has got rid of."""
        return {number: accepted(self._journal(number)) for number in self.producers}

    def restart_postgres(self) -> None:
        """Start it, however it ended; a killed one's children may still be leaving."""
        eventually(lambda: self._tried(self.postgres), 120, "PostgreSQL is back")
        self.proxies["workers to PostgreSQL"].retarget("127.0.0.1", self.postgres.port)

    def restart_flags(self) -> None:
        """Start the flag Redis."""
        self.flags.start()
        self._lead_to_flags()

    def fail_over_flags(self, seconds_alone: float) -> None:
        """Start a replica of the flag Redis, which is asked from now on; the old one ends."""
        old, self.flags = self.flags, self.flags.promoted(self.folder, seconds_alone)
        old.kill()
        self._lead_to_flags()

    def _lead_to_flags(self) -> None:
        for way in ("workers to flags", "producers to flags"):
            self.proxies[way].retarget("127.0.0.1", self.flags.port)

    def restart_broker(self) -> None:
        """Start the broker."""
        self.broker.start()
        for way in ("workers to broker", "producers to broker"):
            self.proxies[way].retarget("127.0.0.1", self.broker.port)

    @staticmethod
    def _tried(server: Postgres) -> bool:
        try:
            server.start()
        except (EmbeddedError, psycopg.Error, OSError):
            return False
        return server.running

    def at_the_end(self, close: Callable[[], Any]) -> None:
        """Have this called when the stage ends."""
        self._closing.append(close)

    # -- the end ----------------------------------------------------------------------------------------------------

    def stop_producers(self) -> None:
        """Let every producer publish all that it has and end."""
        for number, process in self.producers.items():
            # One that was just started again would die of the signal before it listens.
            said = self._journal(number).with_suffix(".listening")
            eventually(
                lambda said=said, pid=process.pid: said.exists() and said.read_text() == str(pid),
                60,
                "a producer listens",
            )
            process.send_signal(signal.SIGTERM)
        for number, process in self.producers.items():
            assert process.wait(300) == 0, (self.folder / f"producer-{number}.log").read_text()
        self.spenders.stop()
        # What killed ones have left is published by whoever opens the spool next.
        with Meter(broker_url=self.broker_url, spool=self.spool_disk.folder / "spool") as last:
            last.flush(120)
        assert list((self.spool_disk.folder / "spool").iterdir()) == []

    def lanes(self) -> dict[str, Lane]:
        """Workspaces beside those of the producers, and what was recorded for them."""
        probes = {workspace: Lane(probe.sent, 1) for workspace, probe in self.probes.items()}
        return probes | {workspace: Lane(1, CORRECTED_TOKENS) for workspace in self.corrected.workspaces}

    def missing(self) -> list[str]:
        """Faults that this machine cannot make, with the reason."""
        reasons = {
            "a worker of the release before (the project's history is not here)": self.previous,
            "a host that vanishes (no network namespaces)": self.cable,
            "a clock that jumps (no C compiler)": self.clock,
        }
        return [reason for reason, present in reasons.items() if present is None]

    def flags_are_right(self, seconds: float = 120.0) -> None:
        """Wait until each flag was right at least once: traffic goes on, and what it flips is late for a moment."""
        wrong: set[str] | None = None

        def right() -> bool:
            nonlocal wrong
            try:
                with (
                    psycopg.connect(self.postgres.url(), connect_timeout=2) as conn,
                    self.flags.client("admin") as client,
                ):
                    found = differing_flags(conn, client).keys()
            except (psycopg.Error, redis.RedisError):
                return False
            wrong = set(found) if wrong is None else wrong & found
            return not wrong

        eventually(right, seconds, "all flags follow the balances")

    def close(self) -> None:
        """End everything, whatever state it is in."""
        for close in reversed(self._closing):
            with contextlib.suppress(Exception):
                close()


def freeze(pid: int, seconds: float) -> None:
    """SIGSTOP a process and all its children, wait, and let them go on."""
    try:
        parent = psutil.Process(pid)
        frozen = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    try:
        for process in frozen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        time.sleep(seconds)
    finally:
        for process in reversed(frozen):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
