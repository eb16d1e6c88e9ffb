"""Which parts make up the embedded stack, and how they find one another."""

from __future__ import annotations

import os
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from taximeter_cli import dashboard
from taximeter_cli.addresses import MASTER_KEY_FILE, MASTER_KEY_VARIABLES
from taximeter_cli.embedded import acl, logins
from taximeter_cli.embedded import state as states
from taximeter_cli.embedded.parts import Part, Program
from taximeter_cli.embedded.postgres import Postgres
from taximeter_cli.embedded.process import LOOPBACK, free_port
from taximeter_cli.embedded.valkey import BROKER_DATABASE, FLAG_DATABASE, Valkey

if TYPE_CHECKING:
    from psycopg import Connection

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

    def addresses(self) -> dict[str, str]:
        """The addresses for people and tools on this machine, by the variables that name them."""
        page = {dashboard.URL: f"http://{LOOPBACK}:{self._dashboard_port}"} if self._dashboard_port else {}
        return {
            "TAXIMETER_DATABASE_URL": self.postgres.url(),
            "TAXIMETER_BROKER_URL": self.valkey.url(BROKER_DATABASE),
            "TAXIMETER_REDIS_URL": self.valkey.url(FLAG_DATABASE),
            METRICS: f"http://{LOOPBACK}:{self._metrics_port}/metrics",
            **page,
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
        if self._demo:
            parts.append(Part("demo", self._demo_traffic()))
        return parts

    def _prepare(self) -> None:
        self._prepare_database()
        if self._demo:
            from taximeter_cli.demo import remember

            remember(self.postgres.socket_url())

    def _prepare_database(self) -> None:
        """Migrate and fill an empty price book, unless this version of Taximeter has done so on this database.

        The question is cheap, and loading what migrates takes a second, which every start would pay.
        """
        from importlib.resources import files

        from taximeter_db.connect import connection

        url = self.postgres.socket_url()
        versions = files("taximeter_db").joinpath("migrations", "versions")
        known = ",".join(sorted(file.name for file in versions.iterdir() if file.name.endswith(".py")))
        note = self._folder / "prepared"
        with connection(url) as conn:
            if note.exists() and note.read_text(encoding="utf-8") == f"{_revision(conn)} {known}":
                return
            from taximeter_db.migrate import upgrade
            from taximeter_worker.pricing import seed

            upgrade(url)
            seed(conn)
            note.write_text(f"{_revision(conn)} {known}", encoding="utf-8")

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
        from taximeter_db import master_keys

        if any(os.environ.get(name) for name in MASTER_KEY_VARIABLES):
            return {}
        return {master_keys.FILE_VARIABLE: str(master_keys.make_file(self._folder / MASTER_KEY_FILE))}

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
            [sys.executable, "-m", "taximeter_cli.dashboard"],
            environment=lambda: {
                "TAXIMETER_DATABASE_URL": self.postgres.socket_url(role=logins.DASHBOARD),
                "PYTHONUNBUFFERED": "1",
                dashboard.SECRET: dashboard.embedded_secret(self._folder),
                **self._master_key(),
                "TAXIMETER_DASHBOARD_HOST": LOOPBACK,
                "TAXIMETER_DASHBOARD_PORT": str(self._dashboard_port),
            },
            log=self._folder / "dashboard.log",
            ready=lambda: _answers(f"{self.addresses()[dashboard.URL]}/openapi.json"),
        )

    def _demo_traffic(self) -> Program:
        return Program(
            "demo",
            [sys.executable, "-m", "taximeter_cli.demo"],
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


def _revision(conn: Connection[Any]) -> str | None:
    """Revision of the schema, or None where there is none yet."""
    if conn.execute("SELECT to_regclass('taximeter.alembic_version')").fetchone() == (None,):
        return None
    row = conn.execute("SELECT version_num FROM taximeter.alembic_version").fetchone()
    return str(row[0]) if row else None
