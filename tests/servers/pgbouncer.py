"""PgBouncer before a PostgreSQL of the tests. In transaction mode every transaction may meet another server process."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg

from servers import require
from taximeter_cli.embedded.process import free_port
from waiting import eventually

BINARY = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"


def installed() -> bool:
    return Path(BINARY).exists()


class PgBouncer:
    """One pooler for all databases of the server that `logins` lead to; those may pass. Stop it when done."""

    def __init__(self, folder: Path, logins: Sequence[str], *, pool_size: int = 6, mode: str = "transaction") -> None:
        parts = urlsplit(logins[0])
        self.port = free_port()
        users = folder / "users.txt"
        users.write_text(
            "".join(f'"{login.username}" "{unquote(login.password or "")}"\n' for login in map(urlsplit, logins))
        )
        settings = folder / "pgbouncer.ini"
        settings.write_text(
            f"""[databases]
* = host={parts.hostname} port={parts.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = plain
auth_file = {users}
pool_mode = {mode}
default_pool_size = {pool_size}
server_round_robin = 1
logfile = {folder / "log"}
pidfile = {folder / "pid"}
"""
        )
        command = [BINARY, str(settings)]
        if os.getuid() == 0:  # it refuses to run as root
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, "nobody", "nogroup")
            command = [BINARY, "-u", "nobody", str(settings)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def url(self, server_url: str) -> str:
        """The address of a database through the pooler."""
        parts = urlsplit(server_url)
        return server_url.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{self.port}")

    def wait(self, server_url: str, seconds: float = 60) -> None:
        """Until it answers."""

        def answers() -> bool:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url(server_url), connect_timeout=2).close()
                return True
            return False

        eventually(answers, seconds, what="a pooler that answers")

    def stop(self) -> None:
        """End it, by its own handle."""
        self._process.terminate()
        self._process.wait(30)


@contextlib.contextmanager
def pgbouncer(logins: Sequence[str], **settings: Any) -> Iterator[PgBouncer]:
    """A pooler that runs and answers; see `PgBouncer`."""
    require("PgBouncer", installed(), "install pgbouncer")
    with tempfile.TemporaryDirectory(prefix="tx-pgbouncer-", dir="/tmp") as folder:
        running = PgBouncer(Path(folder), logins, **settings)
        try:
            running.wait(logins[0])
            yield running
        finally:
            running.stop()
