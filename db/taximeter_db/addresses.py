"""Addresses of servers, checked once, at start.

A special character in a password that is not percent-encoded makes every parser cut the address at another place. So the
parts are checked here, before a library sees them, and no sentence quotes any of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

AMQP_SCHEMES: Final = ("amqp://", "amqps://", "pyamqp://")
REDIS_SCHEMES: Final = ("redis://", "rediss://", "unix://", "redis+socket://", "valkey://", "valkeys://")
POSTGRES_SCHEMES: Final = ("postgresql://", "postgres://", "postgresql+psycopg://")
_SOCKET_SCHEMES: Final = ("unix", "redis+socket")
_PORT_MAX: Final = 65535
_PARTS: Final = re.compile(
    r"(?P<scheme>[a-z+]+)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?P<rest>#.*)?"
)
_HOST: Final = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[^\[\]:@]*)(?::(?P<port>[0-9]*))?", re.ASCII)
ENCODE: Final = (
    "cannot be understood. Percent-encode each special character in its user and password"
    " (# is %23, / is %2F, ? is %3F, @ is %40, : is %3A)"
)


def address(*schemes: str) -> Callable[[str], str]:
    """A parser of addresses of these kinds; it returns the text as it is.

    Several servers of one cluster are separated by commas within a PostgreSQL address, and by semicolons between AMQP
    addresses. The parser raises ValueError, with a sentence that quotes no part of the address.
    """

    def parse(text: str) -> str:
        if text[:1] in {'"', "'"}:
            raise ValueError("must not stand in quotation marks: what reads the file keeps them")
        if not text.startswith(schemes):
            raise ValueError(f"must start with one of {', '.join(schemes)}")
        if any(letter.isspace() or not letter.isprintable() for letter in text):
            raise ValueError(f"{ENCODE}; it holds a blank or a control character")
        for server in text.split(";") if text.startswith(AMQP_SCHEMES) else (text,):
            _check(server)
        if text.startswith(POSTGRES_SCHEMES):
            _check_postgres(text)
        return text

    return parse


def _check(text: str) -> None:
    parts = _PARTS.fullmatch(text)
    if parts is None or parts["rest"]:
        raise ValueError(ENCODE)
    user, _, hosts = parts["authority"].rpartition("@")
    query = (parts["query"] or "?")[1:]
    path = "" if parts["scheme"] in _SOCKET_SCHEMES else parts["path"]
    # An @ after the host, or two before it, is where a password was cut.
    if "@" in path + query + user or any("=" not in pair for pair in query.split("&") if pair):
        raise ValueError(ENCODE)
    for host in hosts.split(","):
        found = _HOST.fullmatch(host)
        if found is None or int(found["port"] or 0) > _PORT_MAX:
            raise ValueError(ENCODE)


def _check_postgres(text: str) -> None:
    """Let libpq read it: it knows its parameters."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        conninfo_to_dict(libpq_url(text))
    except psycopg.Error:
        raise ValueError(f"{ENCODE}; or it has a parameter that PostgreSQL does not know") from None


def libpq_url(text: str) -> str:
    """A PostgreSQL address in the spelling that libpq knows."""
    return text.replace("postgresql+psycopg://", "postgresql://", 1)
