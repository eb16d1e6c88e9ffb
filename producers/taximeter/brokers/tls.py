"""TLS to the broker: the certificate is verified, and so is the host's name.

An ``amqps://`` address may name files in its query, as redis-py's addresses do: ``ssl_ca_certs``, ``ssl_certfile``, ``ssl_keyfile``.
Without ``ssl_ca_certs`` the system's authorities count. Nothing switches the verification off.
"""

from __future__ import annotations

import ssl
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

_HUNG_UP: Final = (
    "EOF occurred in violation of protocol",
    "reset by peer",
    "roken pipe",
    "onnection closed",
    "closed the conn",
)
_FILES: Final = {"ssl_ca_certs": "ca_certs", "ssl_certfile": "certfile", "ssl_keyfile": "keyfile"}


def split_tls(url: str) -> tuple[str, dict[str, Any] | None]:
    """An AMQP address without its TLS files, and the options for py-amqp; None where the address is not ``amqps://``.

    Several addresses, separated by semicolons, share the files of the last one; the name that is verified
    (`server_hostname`) is the first one's; a connection to another node needs that node's.
    """
    if not url.startswith("amqps://"):
        return url, None
    parts = urlsplit(url)
    options: dict[str, Any] = {
        "cert_reqs": ssl.CERT_REQUIRED,
        "server_hostname": urlsplit(url.partition(";")[0]).hostname,
    }
    rest = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in _FILES:
            options[_FILES[name]] = value
        else:
            rest.append((name, value))
    return parts._replace(query=urlencode(rest)).geturl(), options


def explained(error: Exception) -> Exception:
    """What went wrong on an encrypted connection, with the likely reason where the server only hung up.

    One that wants a certificate of ours says so after its part of the handshake, and its words may be overtaken by the end of the
    connection.
    """
    if any(words in str(error) for words in _HUNG_UP):
        return ConnectionError(
            f"{error}. Perhaps the server wants a certificate of ours (ssl_certfile and ssl_keyfile in the address), or another one"
        )
    return error
