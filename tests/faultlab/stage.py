"""The system under fault: PostgreSQL, flag Valkey and broker of its own, two workers, some producers, a proxy on every way.

``producers ─proxy─ broker ─proxy─ workers ─proxy─ PostgreSQL``; both sides reach the flags through proxies of their own.
PostgreSQL's data and the producers' spool lie on small disks that can be filled.
"""

from __future__ import annotations

import contextlib
import os
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

from faultlab.disks import SmallDisk
from faultlab.producer import accepted
from proxy import Proxy
from servers.rabbitmq import RabbitMQ
from taximeter import Meter
from taximeter_cli.embedded.logins import METRICS, WORKER, part_url
from taximeter_cli.embedded.postgres import Postgres
from taximeter_cli.embedded.process import free_port
from taximeter_cli.embedded.valkey import BROKER_DATABASE, FLAG_DATABASE, Valkey
from taximeter_cli.errors import EmbeddedError
from taximeter_db.migrate import upgrade
from workers import WorkerProcess, eventually, set_prices

RECOVERY_SECONDS_MAX = 600.0
_TESTS = Path(__file__).parents[1]


class Stage:
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
        self._folder = folder
        self._rate = rate / producers
        self._environment = dict(environment)
        self._closing: list[Callable[[], Any]] = []
        self.database_disk = self._keep(SmallDisk(folder / "d", database_megabytes))
        self.spool_disk = self._keep(SmallDisk(folder / "s", 64))
        self.postgres = Postgres(self.database_disk.folder / "pg", settings={"shared_buffers": "64MB"})
        self._closing.append(lambda: self.postgres.stop("immediate"))
        self.postgres.start()
        upgrade(self.postgres.url())
        set_prices(self.postgres.url())
        self.flags = Valkey(folder / "f")
        self._closing.append(self.flags.kill)
        self.flags.start()
        self.broker: RabbitMQ | Valkey = RabbitMQ(folder / "b") if broker == "rabbitmq" else Valkey(folder / "b")
        self._closing.append(self.broker.close if isinstance(self.broker, RabbitMQ) else self.broker.kill)
        self.broker.start()
        self.proxies = {
            "producers to broker": self._proxy(self.broker_url),
            "workers to broker": self._proxy(self.broker_url),
            "workers to PostgreSQL": self._proxy(self.postgres.url()),
            "workers to flags": self._proxy(self.flags.url(FLAG_DATABASE)),
            "producers to flags": self._proxy(self.flags.url(FLAG_DATABASE)),
        }
        self.workers = [self._worker(number) for number in range(2)]
        for worker in self.workers:
            worker.start()
        for worker in self.workers:
            eventually(lambda worker=worker: worker.connected or not worker.running, 120, "a worker is up")
        if isinstance(self.broker, RabbitMQ):
            self.broker.let_queues_settle()
        self.producers: dict[int, subprocess.Popen[bytes]] = {}
        self.probes = {lane: Probe(self, lane) for lane in ("probe-1", "probe-2", "probe-3")}
        for number in range(producers):
            self.start_producer(number)

    def _keep(self, disk: SmallDisk) -> SmallDisk:
        self._closing.append(disk.close)
        return disk

    @property
    def broker_url(self) -> str:
        """The broker's own address."""
        return self.broker.url() if isinstance(self.broker, RabbitMQ) else self.broker.url(BROKER_DATABASE)

    def _proxy(self, url: str) -> Proxy:
        parts = urlsplit(url)
        proxy = Proxy(parts.hostname or "", parts.port or 0)
        self._closing.append(proxy.close)
        return proxy

    # -- parts ------------------------------------------------------------------------------------------------------

    def _worker(self, number: int) -> WorkerProcess:
        database_url = self.proxies["workers to PostgreSQL"].url(self.postgres.url())
        settings = {
            "TAXIMETER_DATABASE_URL": part_url(database_url, WORKER),
            "TAXIMETER_METRICS_DATABASE_URL": part_url(database_url, METRICS),
            "TAXIMETER_BROKER_URL": self.proxies["workers to broker"].url(self.broker_url),
            "TAXIMETER_REDIS_URL": self.proxies["workers to flags"].url(self.flags.url(FLAG_DATABASE)),
            "TAXIMETER_METRICS_PORT": str(free_port()),
            # Small batches: more commits, flags and acknowledgements to die between.
            "TAXIMETER_BATCH_EVENTS_MAX": "1000",
        }
        worker = WorkerProcess({**self._environment, **settings}, self._folder / f"worker-{number}.log")
        self._closing.append(worker.kill)
        return worker

    def start_producer(self, number: int) -> None:
        """Start this producer; it goes on where its journal ends."""
        settings = {
            "TAXIMETER_BROKER_URL": self.proxies["producers to broker"].url(self.broker_url),
            "TAXIMETER_REDIS_URL": self.proxies["producers to flags"].url(self.flags.url(FLAG_DATABASE)),
            "TAXIMETER_SPOOL": str(self.spool_disk.folder / "spool"),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(_TESTS), self._environment.get("PYTHONPATH")])),
        }
        command = [sys.executable, "-m", "faultlab.producer", str(self.seed), str(number), self.began_at.isoformat()]
        command += [str(self._rate), str(self._journal(number))]
        with (self._folder / f"producer-{number}.log").open("ab") as log:
            process = subprocess.Popen(command, env={**self._environment, **settings}, stdout=log, stderr=log)
        self.producers[number] = process
        self._closing.append(process.kill)

    def _journal(self, number: int) -> Path:
        return self._folder / f"producer-{number}.journal"

    def accepted(self) -> dict[int, int]:
        """How many events each producer has got rid of."""
        return {number: accepted(self._journal(number)) for number in self.producers}

    def restart_postgres(self) -> None:
        """Start it, however it ended; a killed one's children may still be leaving."""
        eventually(lambda: self._tried(self.postgres), 120, "PostgreSQL is back")
        self.proxies["workers to PostgreSQL"].retarget("127.0.0.1", self.postgres.port)

    def restart_flags(self) -> None:
        """Start the flag Valkey."""
        self.flags.start()
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
            assert process.wait(300) == 0, (self._folder / f"producer-{number}.log").read_text()
        # What killed ones have left is published by whoever opens the spool next.
        with Meter(broker_url=self.broker_url, spool=self.spool_disk.folder / "spool") as last:
            last.flush(120)
        assert list((self.spool_disk.folder / "spool").iterdir()) == []

    def close(self) -> None:
        """End everything, whatever state it is in."""
        for close in reversed(self._closing):
            with contextlib.suppress(Exception):
                close()


class Probe:
    """Tells when the system books again: an event recorded just before a fault, one just after, and both in the ledger."""

    def __init__(self, stage: Stage, lane: str) -> None:
        self.workspace = lane
        self.sent = 0
        self._stage = stage
        self._meter = Meter(
            broker_url=stage.proxies["producers to broker"].url(stage.broker_url),
            spool=stage._folder / lane,
        )
        stage._closing.append(lambda: self._meter.close(0))

    def send(self) -> None:
        """Record one event."""
        self._meter.record(
            self.workspace,
            tool="probe",
            provider="p",
            model="m",
            quantities={"input_tokens": 1},
            id=f"{self.workspace}-{self.sent}",
        )
        self.sent += 1

    def wait(self) -> float:
        """Seconds until all that was sent is booked.

        Raises:
            AssertionError: It is not booked in time: an event is lost, or something does not recover.
        """
        began = time.monotonic()
        eventually(lambda: self._booked() >= self.sent, RECOVERY_SECONDS_MAX, f"{self.workspace} is booked")
        return time.monotonic() - began

    def _booked(self) -> int:
        query = "SELECT usage_count FROM taximeter.workspaces WHERE workspace_id = %s"
        try:
            with psycopg.connect(self._stage.postgres.url(), connect_timeout=2) as conn:
                row = conn.execute(query, [self.workspace]).fetchone()
        except (psycopg.Error, EmbeddedError):
            return -1
        return int(row[0]) if row else 0

    def close(self) -> None:
        self._meter.flush(120)
        self._meter.close()


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
