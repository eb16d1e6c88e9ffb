"""Which parts make up the embedded stack, and how they find one another."""

from __future__ import annotations

import os
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from taximeter_cli.addresses import MASTER_KEY_FILE, MASTER_KEY_VARIABLES
from taximeter_cli.commands import dashboard, gateway
from taximeter_cli.embedded import acl, logins
from taximeter_cli.embedded import state as states
from taximeter_cli.embedded.parts import Part, Program
from taximeter_cli.embedded.postgres import Postgres
from taximeter_cli.embedded.process import LOOPBACK, free_port
from taximeter_cli.embedded.valkey import BROKER_DATABASE, FLAG_DATABASE, Valkey

METRICS = "TAXIMETER_METRICS_URL"


class Stack:
    """The parts of ``taximeter up`` on one data directory. A new part is one more entry in :meth:`parts`.

    Args:
        folder: The data directory.
        demo: Whether to add the demonstration's traffic.
    """

    def __init__(self, folder: Path, *, demo: bool = False) -> None:
        self._folder = folder
        self._demo = demo
        self.postgres = Postgres(folder / "postgres")
        self.valkey = Valkey(folder / "valkey")
        known = states.read(folder).addresses
        self._metrics_port = free_port(urlsplit(known.get(METRICS, "")).port)
        self._dashboard_port = free_port(urlsplit(known.get(dashboard.URL, "")).port) if dashboard.installed() else 0

        self._gateway_port = free_port(urlsplit(known.get(gateway.URL, "")).port) if gateway.installed() else 0

    def addresses(self) -> dict[str, str]:
        """The addresses for people and tools on this machine, by the variables that name them."""
        page = {dashboard.URL: f"http://{LOOPBACK}:{self._dashboard_port}"} if self._dashboard_port else {}
        http = {gateway.URL: f"http://{LOOPBACK}:{self._gateway_port}"} if self._gateway_port else {}
        return {
            "TAXIMETER_DATABASE_URL": self.postgres.url(),
            "TAXIMETER_BROKER_URL": self.valkey.url(BROKER_DATABASE),
            "TAXIMETER_REDIS_URL": self.valkey.url(FLAG_DATABASE),
            METRICS: f"http://{LOOPBACK}:{self._metrics_port}/metrics",
            **page,
            **http,
        }

    def parts(self) -> list[Part]:
        """Everything that runs, in the order of its start."""
        parts = [
            Part("PostgreSQL", self.postgres, once_ready=self._prepare, orphan_signal=signal.SIGINT),
            Part("Valkey", self.valkey, orphan_signal=signal.SIGTERM),
            Part("worker", self._worker()),
        ]
        if self._dashboard_port:
            parts.append(Part("dashboard", self._dashboard()))
        if self._gateway_port:
            parts.append(Part("gateway", self._gateway()))
        if self._demo:
            parts.append(Part("demo", self._demo_traffic()))
        return parts

    def _prepare(self) -> None:
        self._prepare_database()
        if self._demo:
            from taximeter_cli.demo.traffic import remember

            remember(self.postgres.socket_url())

    def _prepare_database(self) -> None:
        """Migrate and fill an empty price book, unless this version of Taximeter has done so on this database.

        The question is cheap, and loading what migrates takes a second, which every start would pay.
        """
        from importlib.resources import files

        from taximeter_db import schema
        from taximeter_db.connect import MIGRATIONS, connection

        url = self.postgres.socket_url()
        versions = files("taximeter_db").joinpath("migrations", "versions")
        known = ",".join(sorted(file.name for file in versions.iterdir() if file.name.endswith(".py")))
        note = self._folder / "prepared"
        with connection(url, profile=MIGRATIONS) as conn:
            if note.exists() and note.read_text(encoding="utf-8") == f"{schema.of_database(conn)} {known}":
                return
            from taximeter_db.migrate import upgrade
            from taximeter_worker.pricing.loading import seed

            upgrade(url)
            seed(conn)
            note.write_text(f"{schema.of_database(conn)} {known}", encoding="utf-8")

    def _environment(self, login: str = logins.OWNER) -> dict[str, str]:
        """What a part is given: its own database user, and no other's."""
        return {
            **self.addresses(),
            "TAXIMETER_DATABASE_URL": self.postgres.socket_url(role=login),
            "TAXIMETER_METRICS_HOST": LOOPBACK,
            "TAXIMETER_METRICS_PORT": str(self._metrics_port),
            "PYTHONUNBUFFERED": "1",
        }

    def _master_key(self) -> dict[str, str]:
        """The master key that payloads are encrypted under, made with the instance; one of our user's own goes before it."""
        from taximeter_db.crypto import master_keys

        if any(os.environ.get(name) for name in MASTER_KEY_VARIABLES):
            return {}
        return {MASTER_KEY_VARIABLES[1]: str(master_keys.make_file(self._folder / MASTER_KEY_FILE))}

    def _worker(self) -> Program:
        return Program(
            "worker",
            [sys.executable, "-m", "taximeter_worker"],
            environment=lambda: {
                **self._environment(logins.WORKER),
                "TAXIMETER_BROKER_URL": self.valkey.url(BROKER_DATABASE, user=acl.WORKER),
                "TAXIMETER_REDIS_URL": self.valkey.url(FLAG_DATABASE, user=acl.WORKER),
                **self._master_key(),
                "TAXIMETER_METRICS_DATABASE_URL": self.postgres.socket_url(role=logins.METRICS),
            },
            log=self._folder / "worker.log",
            ready=self._metrics_answer,
        )

    def _dashboard(self) -> Program:
        return Program(
            "dashboard",
            [sys.executable, "-m", "taximeter_cli.commands.dashboard"],
            environment=lambda: {
                "TAXIMETER_DATABASE_URL": self.postgres.socket_url(role=logins.DASHBOARD),
                "TAXIMETER_REDIS_URL": self.valkey.url(FLAG_DATABASE, user=acl.DASHBOARD),
                "PYTHONUNBUFFERED": "1",
                dashboard.SECRET: dashboard.embedded_secret(self._folder),
                **self._master_key(),
                "TAXIMETER_DASHBOARD_HOST": LOOPBACK,
                "TAXIMETER_DASHBOARD_PORT": str(self._dashboard_port),
            },
            log=self._folder / "dashboard.log",
            ready=lambda: _answers(f"{self.addresses()[dashboard.URL]}/openapi.json"),
        )

    def _gateway(self) -> Program:
        return Program(
            "gateway",
            [sys.executable, "-m", "taximeter_cli.commands.gateway"],
            environment=lambda: {
                "TAXIMETER_DATABASE_URL": self.postgres.socket_url(role=logins.GATEWAY),
                "TAXIMETER_BROKER_URL": self.valkey.url(BROKER_DATABASE, user=acl.GATEWAY),
                "TAXIMETER_REDIS_URL": self.valkey.url(FLAG_DATABASE, user=acl.GATEWAY),
                "PYTHONUNBUFFERED": "1",
                **gateway.embedded_spool(self._folder),
                gateway.HOST: LOOPBACK,
                gateway.PORT: str(self._gateway_port),
            },
            log=self._folder / "gateway.log",
            ready=lambda: _answers(f"{self.addresses()[gateway.URL]}/health"),
        )

    def _demo_traffic(self) -> Program:
        return Program(
            "demo",
            [sys.executable, "-m", "taximeter_cli.demo.traffic"],
            environment=lambda: {**self._environment(), "TAXIMETER_SPOOL": str(self._folder / "demo-spool")},
            log=self._folder / "demo.log",
        )

    def _metrics_answer(self) -> bool:
        return _answers(self.addresses()[METRICS])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own http
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
