"""Sending a notice to a webhook, by Standard Webhooks: https://www.standardwebhooks.com.

The receiver is somebody else's: it may be slow, answer without end, send us elsewhere, or be named so that it leads into our
own network. So one deadline bounds all of it, no redirect is followed, nothing of the answer but its first lines is read,
and the address that is connected to is the one that was checked.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Collection, Iterator
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from standardwebhooks.webhooks import Webhook

from taximeter_db.notices import addresses
from taximeter_db.notices.addresses import Network
from taximeter_db.notices.deliveries import DELIVERED, FAILED, GONE, REFUSED, Delivery, Try
from taximeter_worker.errors import AddressRefusedError

SECONDS_MAX: Final = 10.0
"""From the look-up of the name to the last line that is read of the answer."""
_USER_AGENT: Final = "taximeter-notices"


class Deadline:
    """When a try must end."""

    def __init__(self, seconds: float = SECONDS_MAX) -> None:
        self._began = time.monotonic()
        self._ends = self._began + seconds

    @property
    def milliseconds(self) -> int:
        """How long the try has taken so far."""
        return int((time.monotonic() - self._began) * 1000)

    def left(self) -> float:
        """How many seconds are left.

        Raises:
            TimeoutError: None are.
        """
        seconds = self._ends - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        return seconds

    @contextlib.contextmanager
    def over(self, sock: socket.socket) -> Iterator[None]:
        """Break a connection at the deadline, whatever waits for it: an answer may trickle in byte by byte."""
        timer = threading.Timer(self.left(), _break, [sock])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


class Allowed(NamedTuple):
    """Where notices may go: to public addresses, into these networks, or (`anywhere`) wherever the operator says."""

    networks: Collection[Network]
    anywhere: bool

    def check(self, address: str) -> None:
        """Refuse an address.

        Raises:
            AddressRefusedError: Notices may not be sent there.
        """
        if not self.anywhere and not addresses.is_allowed(address, self.networks):
            raise AddressRefusedError(
                "The host's name leads to an address that is not public. TAXIMETER_NOTICE_NETWORKS can allow its network."
            )


def send(delivery: Delivery, networks: Collection[Network], at: Any) -> Try:
    """Sign and send a notice once. Never raises for what the receiver does.

    Args:
        delivery: What to send.
        networks: Where notices may go although it is not public.
        at: The time that is signed, an aware datetime.
    """
    deadline = Deadline()
    try:
        status, retry_after = _post(delivery, Allowed(networks, delivery.allow_private), at, deadline)
    except AddressRefusedError as error:
        return Try(REFUSED, str(error), deadline.milliseconds)
    except (OSError, http.client.HTTPException) as error:
        return Try(FAILED, _why(error, deadline), deadline.milliseconds)
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Try(DELIVERED, f"answered {status}", deadline.milliseconds)
    if status == HTTPStatus.GONE:
        return Try(GONE, "The receiver answered 410: it wants no more notices.", deadline.milliseconds)
    detail = f"The receiver answered {status}."
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        detail += " Redirects are not followed: give the address that it leads to."
    return Try(FAILED, detail, deadline.milliseconds, retry_after)


def headers(delivery: Delivery, at: Any) -> dict[str, str]:
    """The headers of a notice, signed with each of its secrets."""
    return {
        "content-type": "application/json",
        "user-agent": _USER_AGENT,
        "webhook-id": delivery.public_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(
            Webhook(secret).sign(delivery.public_id, at, delivery.body) for secret in delivery.secrets
        ),
        "connection": "close",
    }


def _post(delivery: Delivery, allowed: Allowed, at: Any, deadline: Deadline) -> tuple[int, float | None]:
    """Send the notice; returns the answer's status, and for how many seconds it asks to be left alone."""
    parts = urlsplit(delivery.address)
    host, tls = parts.hostname or "", parts.scheme == "https"
    sock = _connect(host, parts.port or (443 if tls else 80), allowed, deadline)
    with contextlib.closing(sock), deadline.over(sock):
        if tls:
            sock.settimeout(deadline.left())
            stream: socket.socket = ssl.create_default_context().wrap_socket(sock, server_hostname=host)
        else:
            stream = sock
        with contextlib.closing(stream):
            stream.settimeout(deadline.left())
            connection = http.client.HTTPConnection(host, parts.port or (443 if tls else 80))
            connection.default_port = 443 if tls else 80  # what Host leaves out
            connection.sock = stream
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("POST", target, delivery.body.encode(), headers(delivery, at))
            answer = connection.getresponse()
            deadline.left()
            return answer.status, _seconds(answer.getheader("retry-after"))


def _connect(host: str, port: int, allowed: Allowed, deadline: Deadline) -> socket.socket:
    """Connect to a host, to an address that was checked.

    Raises:
        AddressRefusedError: One of its addresses is not allowed. A name may lead elsewhere each time it is asked, so it is
            asked once.
        OSError: None of them takes the connection in time.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, address in found:
        allowed.check(str(address[0]))
    failure: OSError = ConnectionRefusedError()
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(deadline.left())
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure


def _break(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _seconds(retry_after: str | None) -> float | None:
    """What Retry-After asks for: a number of seconds, or a date."""
    if not retry_after:
        return None
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    with contextlib.suppress(ValueError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    return None


def _why(error: Exception, deadline: Deadline) -> str:
    """A sentence about a failure that quotes nothing of the address."""
    try:
        deadline.left()
    except TimeoutError:
        return f"The receiver did not answer within {SECONDS_MAX:g} seconds."
    match error:
        case socket.gaierror():
            return "The host's name is not known."
        case ssl.SSLError():
            return f"The connection could not be secured: {error.reason or 'TLS failed'}."
        case TimeoutError():
            return "The receiver did not answer in time."
        case ConnectionRefusedError():
            return "The connection was refused."
        case http.client.HTTPException():
            return "The receiver did not answer in HTTP."
        case _:
            return f"The connection broke ({type(error).__name__})."
