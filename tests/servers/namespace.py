"""A network namespace with one cable to this machine, which can be pulled out: what is sent is then lost without an answer."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


class Namespace:
    """``host`` is this machine's address at the cable: servers listen there, and stay reachable from here without it."""

    def __init__(self) -> None:
        self.name = f"tx{secrets.token_hex(3)}"
        self._cable = f"v{self.name}"
        network = f"10.213.{secrets.randbelow(256)}"
        first = 4 * secrets.randbelow(64)
        self.host, guest = f"{network}.{first + 1}", f"{network}.{first + 2}"
        _run("ip", "netns", "add", self.name)
        _run("ip", "link", "add", self._cable, "type", "veth", "peer", "name", "up0", "netns", self.name)
        _run("ip", "address", "add", f"{self.host}/30", "dev", self._cable)
        _run("ip", "link", "set", self._cable, "up")
        _run("ip", "-n", self.name, "address", "add", f"{guest}/30", "dev", "up0")
        for device in ("lo", "up0"):
            _run("ip", "-n", self.name, "link", "set", device, "up")

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to write before a command so that it runs inside."""
        return ("ip", "netns", "exec", self.name)

    def drop_packets(self) -> None:
        """Pull the cable out at our end: theirs keeps its address and route, and what it sends is lost without a word."""
        _run("ip", "link", "set", self._cable, "down")

    def pass_packets(self) -> None:
        """Put the cable back."""
        _run("ip", "link", "set", self._cable, "up")

    def popen(self, *command: str) -> subprocess.Popen[str]:
        """Start a command inside."""
        return subprocess.Popen(
            [*self.prefix, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
        )

    def close(self) -> None:
        """Remove it and its cable."""
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self._cable], check=False, capture_output=True)


def possible() -> bool:
    """Whether this machine lets us make one."""
    if not shutil.which("ip") or os.getuid() != 0:
        return False
    try:
        Namespace().close()
    except subprocess.CalledProcessError:
        return False
    return True
