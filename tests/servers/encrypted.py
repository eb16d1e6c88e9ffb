"""Servers that speak TLS and nothing else, from the system's packages: those of the wheels are built without it."""

from __future__ import annotations

import secrets
import shutil
import signal
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import redis

from servers import QUICK_POSTGRES
from servers.authority import Authority
from taximeter_cli.embedded.postgres import DATABASE, ROLE, SUPERUSER, Postgres
from taximeter_cli.embedded.process import LOOPBACK, free_port, run, spawn, stop_process, tail, wait_until


def postgresql_binaries() -> Path | None:
    """The newest of Debian's, else the folder of what is on the path."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    found = debian[-1] if debian else shutil.which("initdb")
    return Path(found).parent if found else None


def redis_program() -> str | None:
    """A Redis or Valkey from the system, which is built with TLS."""
    return shutil.which("redis-server") or shutil.which("valkey-server")


@dataclass(frozen=True)
class Files:
    """What one side of a connection holds: the authority that it believes, and its own certificate and key."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None

    def of(self, url: str) -> str:
        """The address with these files, in the words of its driver."""
        words = {"postgresql": ("sslrootcert", "sslcert", "sslkey")}
        names = words.get(urlsplit(url).scheme, ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"))
        pairs = zip(names, (self.ca, self.certificate, self.key), strict=True)
        given = [f"{name}={path}" for name, path in pairs if path is not None]
        if "sslrootcert" in names:
            given.insert(0, "sslmode=verify-full")
            # Else libpq looks for one in the home of whoever runs the tests.
            given += [] if self.certificate else ["sslcert=/none", "sslkey=/none"]
        return f"{url}?{'&'.join(given)}"


class EncryptedPostgres(Postgres):
    """Debian's PostgreSQL with ``ssl = on`` and nothing but ``hostssl``; ``mutual``: and a certificate of the client."""

    def __init__(self, root: Path, authority: Authority, files: Files, *, mutual: bool) -> None:
        super().__init__(root, settings={**QUICK_POSTGRES, "ssl": "on", "ssl_ca_file": "ca.pem"})
        found = postgresql_binaries()
        assert found is not None
        self._system, self._authority, self.files = found, authority, files
        self._option = " clientcert=verify-ca" if mutual else ""

    def url(self, dbname: str = DATABASE, *, role: str = ROLE) -> str:
        return self.files.of(self.bare_url(dbname, role=role))

    def bare_url(self, dbname: str = DATABASE, *, role: str = ROLE) -> str:
        """Without a word about TLS."""
        return super().url(dbname, role=role)

    @property
    def _binaries(self) -> Path:
        return self._system

    def _make_cluster(self, binaries: Path) -> None:
        data = self._data
        command = [binaries / "initdb", "-D", data, "-U", SUPERUSER, "--auth=scram-sha-256", "--no-sync"]
        done = run(
            [*command, f"--pwfile={self._home / 'password'}", "--encoding=UTF8", "--locale=C"], account=self._account
        )
        assert done.returncode == 0, done.stderr
        rules = f"local all all scram-sha-256\nhostssl all all {LOOPBACK}/32 scram-sha-256{self._option}\n"
        (data / "pg_hba.conf").write_text(rules)
        certificate, key = self._authority.issue(LOOPBACK)
        for source, name in ((certificate, "server.crt"), (key, "server.key"), (self._authority.ca, "ca.pem")):
            shutil.copy(source, data / name)
            (data / name).chmod(0o600)
            self._give(data / name)


class EncryptedRedis:
    """The system's Redis with ``tls-port`` and ``port 0``; ``mutual``: it wants a certificate of the client."""

    def __init__(self, folder: Path, authority: Authority, files: Files, *, mutual: bool) -> None:
        self.folder, self.files = folder, files
        self.password = secrets.token_urlsafe(24)
        self.port = free_port()
        certificate, key = authority.issue(LOOPBACK)
        lines = {
            "bind": LOOPBACK,
            "port": 0,
            "tls-port": self.port,
            "tls-cert-file": certificate,
            "tls-key-file": key,
            "tls-ca-cert-file": authority.ca,
            "tls-auth-clients": "yes" if mutual else "no",
            "requirepass": self.password,
            "dir": folder,
            "save": '""',
            "maxmemory-policy": "noeviction",
        }
        (folder / "redis.conf").write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
        self._process: subprocess.Popen[bytes] | None = None

    def bare_url(self, database: int = 0) -> str:
        """Without a word about certificates."""
        return f"rediss://:{self.password}@{LOOPBACK}:{self.port}/{database}"

    def url(self, database: int = 0) -> str:
        return self.files.of(self.bare_url(database))

    def start(self) -> None:
        log = self.folder / "log"
        self._process = spawn([redis_program() or "", self.folder / "redis.conf"], log=log, cwd=self.folder)
        if not wait_until(self._answers, 30):
            self.stop()
            raise AssertionError(f"Redis does not start; the end of its log:\n{tail(log)}")

    def stop(self) -> None:
        if self._process is not None:
            stop_process(self._process, signal.SIGTERM, timeout_seconds=10, last=signal.SIGKILL)

    def _answers(self) -> bool:
        # Without a look at its certificate, which may be one to be refused; it answers a client without one, too.
        files = {"ssl_certfile": self.files.certificate, "ssl_keyfile": self.files.key}
        options = {name: str(path) for name, path in files.items() if path}
        try:
            with redis.Redis.from_url(
                self.bare_url(), ssl_cert_reqs=ssl.CERT_NONE, ssl_check_hostname=False, **options
            ) as client:
                return bool(client.ping())
        except (redis.RedisError, OSError):
            return False
