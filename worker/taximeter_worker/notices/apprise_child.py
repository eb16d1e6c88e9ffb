"""A process that sends one notice through Apprise, and ends: ``python -m taximeter_worker.notices.apprise_child``.

Apprise knows a hundred services and gives none of them one deadline, nor looks at where it connects to. Here every
connection is looked at as it is made, and whoever started this process ends it when it takes too long. Reads JSON from
its input (the address is on no command line), writes JSON with ``outcome`` and ``detail``.
"""

from __future__ import annotations

import ipaddress
import json
import sys
from typing import Any

from taximeter_db.notices import addresses
from taximeter_db.notices.deliveries import DELIVERED, FAILED, REFUSED

_CONNECTING = frozenset(("socket.connect", "socket.sendto", "socket.sendmsg"))
_STARTING = frozenset(
    ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn")
)


class _Guard:
    """Refuses connections to addresses that are not allowed, and programs; an audit hook, so nothing goes around it."""

    def __init__(self, networks: list[addresses.Network]) -> None:
        self._networks = networks
        self.refused = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _STARTING or (event in _CONNECTING and not self._may(arguments[1])):
            self.refused = True
            raise PermissionError("not allowed")

    def _may(self, address: Any) -> bool:
        # a UNIX socket's address is a text; a numeric one may have been sent before by a name that was resolved
        return isinstance(address, tuple) and bool(address) and addresses.is_allowed(str(address[0]), self._networks)


def main() -> None:
    """Send what the input says."""
    order = json.load(sys.stdin)
    import apprise

    notifier = apprise.Apprise()
    if not notifier.add(order["address"]):
        _say(FAILED, "Apprise does not know such an address, or something is missing in it.")
        return
    guard = _Guard([ipaddress.ip_network(network) for network in order["networks"]])
    if not order["anywhere"]:
        sys.addaudithook(guard)
    try:
        taken = bool(notifier.notify(title=order["title"], body=order["body"]))
    except Exception as error:  # noqa: BLE001 -- a service's own failure, whichever it is
        _say_failed(guard, f"The service failed ({type(error).__name__}).")
        return
    if taken:
        _say(DELIVERED, "taken")
    else:
        _say_failed(guard, "The service did not take it.")


def _say_failed(guard: _Guard, detail: str) -> None:
    if guard.refused:
        _say(REFUSED, "It leads to an address that is not public. TAXIMETER_NOTICE_NETWORKS can allow its network.")
    else:
        _say(FAILED, detail)


def _say(outcome: str, detail: str) -> None:
    sys.stdout.write(json.dumps({"outcome": outcome, "detail": detail}))


if __name__ == "__main__":
    main()
