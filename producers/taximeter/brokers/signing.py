r"""Signatures for a Redis or Valkey broker, which unlike RabbitMQ does not say who pushed a message.

A signed list item is one line and the message behind it::

    taximeter-v1 <key id> <hexadecimal HMAC-SHA256>\n<body>

The HMAC is over ``<queue>\n<body>``, so that a message signed for one queue says nothing in another.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final, NamedTuple

from taximeter.errors import ConfigurationError

MARK: Final = b"taximeter-v1 "
SECRET_CHARACTERS_MIN: Final = 32
_HEADER: Final = re.compile(rb"taximeter-v1 ([A-Za-z0-9._-]{1,64}) ([0-9A-Fa-f]{64})\n")
_ALIKE: Final = re.compile(rb"[\xef\xbb\xbf\s]*taximeter-v[0-9]", re.IGNORECASE)
"""How something begins that was meant as a signature, right or wrong; no event does."""
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class ProducerKey:
    """A producer's name and its secret, which no ``repr`` or ``str`` shows."""

    __slots__ = ("_secret", "key_id")

    def __init__(self, key_id: str, secret: str) -> None:
        if not _ID.fullmatch(key_id):
            raise ConfigurationError("a producer key's id has 1 to 64 characters of A-Z a-z 0-9 . _ -")
        if len(secret) < SECRET_CHARACTERS_MIN:
            raise ConfigurationError(
                f"a producer key's secret has at least {SECRET_CHARACTERS_MIN} random characters;"
                " `python -c 'import secrets; print(secrets.token_hex(32))'` makes some"
            )
        self.key_id = key_id
        self._secret = secret.encode()

    @classmethod
    def parse(cls, text: str) -> ProducerKey:
        """Read ``id:secret``.

        Raises:
            ConfigurationError: It is of another form; the sentence does not quote it.
        """
        key_id, colon, secret = text.partition(":")
        if not colon:
            raise ConfigurationError("a producer key is written id:secret")
        return cls(key_id, secret)

    def __repr__(self) -> str:
        return f"ProducerKey({self.key_id!r}, …)"

    def digest(self, queue: str, body: bytes) -> bytes:
        """Hexadecimal HMAC of a message for a queue."""
        return hmac.digest(self._secret, queue.encode() + b"\n" + body, hashlib.sha256).hex().encode()

    def sign(self, queue: str, body: bytes) -> bytes:
        """The list item that carries the message."""
        return b"%s%s %s\n%s" % (MARK, self.key_id.encode(), self.digest(queue, body), body)


class Signed(NamedTuple):
    """A list item taken apart; nothing is verified yet. `key_id` is None where there is no signature."""

    key_id: str | None
    digest: bytes
    body: bytes
    malformed: bool = False
    """There is something that was meant as a signature and is none."""


def split(item: bytes) -> Signed:
    """Take a list item apart. Never raises; what is not exactly a signature is body."""
    header = _HEADER.match(item) if item.startswith(MARK) else None
    if header is None:
        return Signed(None, b"", item, malformed=_ALIKE.match(item) is not None)
    return Signed(header[1].decode(), header[2].lower(), item[header.end() :])
