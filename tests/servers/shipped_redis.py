"""A Redis or Valkey server under the shipped users and settings, which a test may kill and start again with its data."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import ModuleType

import redis

from taximeter_cli.embedded.process import free_port
from taximeter_cli.embedded.valkey import binary
from waiting import eventually

REDIS = shutil.which("redis-server")
VALKEY = str(binary())
BINARIES = {"Redis (Debian)": REDIS, "Valkey (embedded)": VALKEY}
ACL = Path(__file__).parents[2] / "deploy" / "valkey" / "users.in.acl"
USER_SUFFIX = "-shipped"
"""Of the shipped users on the server that the tests share: it has users of the same names."""


class ShippedRedis:
    """One server; `url` gives the address of one of its users."""

    def __init__(self, program: str, folder: Path, make_secrets: ModuleType, passwords: dict[str, str]) -> None:
        self.port = 0
        self._passwords = passwords
        self._program, self._folder = program, folder
        self._kept = folder / "kept"
        self._make_secrets = make_secrets
        users = folder / "users.acl"
        users.write_text(make_secrets.access_list(ACL.read_text(), passwords))
        self._settings = {
            "bind": "127.0.0.1",
            "dir": folder,
            "aclfile": users,
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory": "64mb",
        }
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, with the data of its last run, on the same port if that is still free."""
        self.port = free_port(self.port or None)
        settings = {"port": self.port, **self._settings}
        command = [self._program, *(word for name, value in settings.items() for word in (f"--{name}", str(value)))]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        eventually(self._answers, what=f"it answers; {self._log.read_text()[-2000:]}")

    def promoted(self, folder: Path, seconds_alone: float = 0.0) -> ShippedRedis:
        """A replica of this server that is the primary from now on; this one takes writes for a while that are lost."""
        made = Path(tempfile.mkdtemp(prefix="f", dir=folder))
        replica = ShippedRedis(self._program, made, self._make_secrets, self._passwords)
        replica._settings |= {"masteruser": "admin", "masterauth": self._passwords["VALKEY_ADMIN_PASSWORD"]}
        replica.start()
        try:
            with replica.client("admin") as client:
                client.replicaof("127.0.0.1", str(self.port))
                eventually(lambda: client.info("replication").get("master_link_status") == "up", 60, "it replicates")
                client.replicaof("NO", "ONE")
        except BaseException:
            replica.kill()
            raise
        time.sleep(seconds_alone)
        return replica

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def pid(self) -> int:
        """The running server's."""
        assert self._process is not None
        return self._process.pid

    @property
    def has_kept_data(self) -> bool:
        """Whether there is a copy of older data."""
        return self._kept.exists()

    def go_back_in_time(self) -> None:
        """Keep a copy of a stopped server's data, and put the copy that was kept before in its place, if there is one."""
        data, older = self._folder / "appendonlydir", self._folder / "older"
        if self._kept.exists():
            self._kept.rename(older)
        shutil.copytree(data, self._kept)
        if older.exists():
            shutil.rmtree(data)
            older.rename(data)

    def url(self, user: str, database: int = 0) -> str:
        """The address of one of the shipped users."""
        return f"redis://{user}:{self._passwords[f'VALKEY_{user.upper()}_PASSWORD']}@127.0.0.1:{self.port}/{database}"

    def client(self, user: str) -> redis.Redis:
        """A client that answers text."""
        return redis.Redis.from_url(self.url(user), decode_responses=True)

    def text(self) -> str:
        """What it logged."""
        return self._log.read_text()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"it does not start:\n{self.text()[-2000:]}"
        try:
            with self.client("health") as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
