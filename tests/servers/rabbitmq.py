"""A RabbitMQ node of our own: private folders, cookie, epmd and loopback ports, so that it clashes with no other."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from taximeter_cli.embedded.process import LOOPBACK, free_port, spawn, stop_process, tail, wait_until

SCRIPTS = Path("/usr/lib/rabbitmq/bin")
"""The scripts themselves: the wrappers in /usr/sbin change user and write to the system's folders."""

QUEUES_SETTLE_SECONDS = 3.0

CONFIGURATION = """\
{listener}
management.tcp.ip = {host}
management.tcp.port = {management_port}
log.console = true
log.console.level = warning
log.file = false
disk_free_limit.absolute = 50MB
raft.wal_max_size_bytes = 67108864
# a test that raises an alarm or counts messages should not wait for statistics
collect_statistics_interval = 1000
"""

MEMBER = """\
cluster_formation.peer_discovery_backend = classic_config
cluster_formation.classic_config.nodes.1 = {name}
cluster_formation.randomized_startup_delay_range.min = 0
cluster_formation.randomized_startup_delay_range.max = 1
"""


def installed() -> bool:
    return (SCRIPTS / "rabbitmq-server").exists() and shutil.which("erl") is not None


class RabbitMQ:
    """One node. Its data stays over ``stop``/``kill`` and ``start``.

    ``folder`` must be short-lived and private; ``start`` takes about six seconds. With ``tls``, names and values of
    `ssl_options`, it speaks TLS alone, and who has a certificate may log in by it (EXTERNAL). With ``member_of`` its first
    start joins the cluster of that node, which must be running then; close that one last.
    """

    _ENDED_BY_US = (0, -signal.SIGTERM, -signal.SIGKILL)

    def __init__(
        self, folder: Path, tls: Mapping[str, object] | None = None, *, member_of: RabbitMQ | None = None
    ) -> None:
        self.folder = folder
        self._member_of = member_of
        self._tls = tls
        self.name = f"taximeter-{secrets.token_hex(4)}@localhost"
        self.port = self.management_port = self._epmd_port = self._distribution_port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def url(self, vhost: str = "/") -> str:
        scheme = "amqps" if self._tls else "amqp"
        return f"{scheme}://guest:guest@{LOOPBACK}:{self.port}/{quote(vhost, safe='')}"

    def start(self, timeout_seconds: float = 90.0) -> None:
        if self.running:
            return
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.port, self.management_port, self._distribution_port = (
            free_port(port or None) for port in (self.port, self.management_port, self._distribution_port)
        )
        first = self._member_of
        self._epmd_port = self._epmd_port or (first._epmd_port if first else free_port())
        self._prepare()
        if first is None and (self._epmd is None or self._epmd.poll() is not None):
            epmd = ["epmd", "-port", str(self._epmd_port), "-address", LOOPBACK]
            self._epmd = spawn(epmd, log=self.folder / "epmd.log", env=self._environment())
            # or the node starts one of its own, which nobody stops
            wait_until(lambda: self._listens(self._epmd_port), 10)
        self._process = spawn([SCRIPTS / "rabbitmq-server"], log=self.log, env=self._environment(), cwd=self.folder)
        ready = wait_until(lambda: not self.running or self._answers(), timeout_seconds)
        if not ready or not self.running:
            self.close()
            raise AssertionError(f"RabbitMQ does not start; the end of its log:\n{tail(self.log, 40)}")

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def stop(self) -> None:
        """Stop the node in order."""
        if self._process is not None:
            stop_process(self._process, signal.SIGTERM, timeout_seconds=30, last=signal.SIGKILL)

    def let_queues_settle(self) -> None:
        """Wait until queues that were just declared for the first time survive a kill.

        A RabbitMQ 3.10 that is killed within a second of a quorum queue's first declaration has not yet noted on disk where
        the queue's log is: it comes back with an empty replica that never elects a leader. See docs/guarantees.md.
        """
        time.sleep(QUEUES_SETTLE_SECONDS)

    def kill(self) -> None:
        """End the node as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """Freeze the node: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Stop everything and remove the data."""
        if self._process is not None and self._process.poll() not in (None, *self._ENDED_BY_US):
            print(f"RabbitMQ ended by itself ({self._process.returncode}):\n{tail(self.log, 40)}")
        self.kill()
        if self._epmd is not None:
            stop_process(self._epmd, signal.SIGTERM, timeout_seconds=5, last=signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def ctl(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` (1 to 2 seconds), for what the HTTP API cannot do, such as raising an alarm."""
        command = [str(SCRIPTS / "rabbitmqctl"), "--quiet", *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=self._environment())
        return done.stdout

    def api(self, method: str, path: str, body: object = None) -> Any:
        """Call the management API, for example ``api("GET", "queues/%2F")``; returns the decoded answer or None."""
        token = base64.b64encode(b"guest:guest").decode()
        request = urllib.request.Request(
            f"http://{LOOPBACK}:{self.management_port}/api/{path}",
            method=method,
            headers={"authorization": f"Basic {token}", "content-type": "application/json"},
            data=None if body is None else json.dumps(body).encode(),
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def make_vhost(self) -> str:
        """A fresh virtual host; returns its name."""
        name = f"test-{secrets.token_hex(6)}"
        self.api("PUT", f"vhosts/{name}", {})
        self.api("PUT", f"permissions/{name}/guest", {"configure": ".*", "write": ".*", "read": ".*"})
        return name

    def drop_vhost(self, name: str) -> None:
        self.api("DELETE", f"vhosts/{name}")

    def _answers(self) -> bool:
        if not self._listens(self.port):  # the check below was once seen to say yes before that
            return False
        try:
            return bool(self.api("GET", "health/checks/port-listener/" + str(self.port))["status"] == "ok")
        except (urllib.error.URLError, OSError, KeyError, json.JSONDecodeError):
            return False

    def _listens(self, port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((LOOPBACK, port)) == 0

    def _prepare(self) -> None:
        cookie = self.folder / ".erlang.cookie"
        if not cookie.exists():
            first = self._member_of
            cookie.write_text((first.folder / ".erlang.cookie").read_text() if first else secrets.token_hex(16))
            cookie.chmod(0o400)
        plugins, listener = "rabbitmq_management", f"listeners.tcp.1 = {LOOPBACK}:{self.port}"
        if self._tls:
            plugins += ",rabbitmq_auth_mechanism_ssl"
            lines = [f"ssl_options.{name} = {value}" for name, value in self._tls.items()]
            lines += ["auth_mechanisms.1 = PLAIN", "auth_mechanisms.2 = EXTERNAL", "ssl_cert_login_from = common_name"]
            listener = "\n".join(["listeners.tcp = none", f"listeners.ssl.1 = {LOOPBACK}:{self.port}", *lines])
        (self.folder / "enabled_plugins").write_text(f"[{plugins}].\n")
        configuration = CONFIGURATION.format(listener=listener, host=LOOPBACK, management_port=self.management_port)
        if self._member_of:
            configuration += MEMBER.format(name=self._member_of.name)
        (self.folder / "rabbitmq.conf").write_text(configuration)

    def _environment(self) -> dict[str, str]:
        # RUNNING_UNDER_SYSTEMD makes the script turn into the virtual machine instead of waiting beside it
        return {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "RUNNING_UNDER_SYSTEMD": "true",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_BASE": str(self.folder),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.folder / "config"),
            "RABBITMQ_SCHEMA_DIR": str(self.folder / "schema"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1} +S 2:2",
            "RABBITMQ_CTL_ERL_ARGS": "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
        }
