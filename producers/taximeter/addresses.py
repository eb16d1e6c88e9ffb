"""Addresses of brokers and Redis: understood once, when they are given, and never shown.

An address holds a password. So an error names the variable and says what to do, but quotes nothing of the address.
"""

from __future__ import annotations

import enum
import re
from typing import Final, assert_never
from urllib.parse import urlsplit

from taximeter.errors import ConfigurationError

BROKER_URL_VARIABLE: Final = "TAXIMETER_BROKER_URL"
REDIS_URL_VARIABLE: Final = "TAXIMETER_REDIS_URL"
_SOCKET_SCHEMES: Final = frozenset(("unix", "redis+socket"))
NODE_SEPARATOR: Final = ";"
_REDIS_SPELLINGS: Final = (("redis+socket://", "unix://"), ("valkeys://", "rediss://"), ("valkey://", "redis://"))
_VIRTUAL_HOST: Final = re.compile(r"(?P<before>[?&])virtual_host=(?:/|%2F)?", re.IGNORECASE)

_PERCENT_ENCODE: Final = (
    "percent-encode what is special in its user name and password: %23 for #, %2F for /, %3F for ?, %40 for @, %3A for :"
    " and %3B for ;"
)


class BrokerKind(enum.Enum):
    """A kind of broker, and the schemes of its addresses.

    Whoever decides by the kind matches all of them and ends with `assert_never`: so mypy shows where a new one is missing.
    """

    RABBITMQ = ("amqp", "amqps", "pyamqp")
    REDIS = ("redis", "rediss", "unix", "redis+socket", "valkey", "valkeys")


BROKER_SCHEMES: Final = tuple(f"{scheme}://" for kind in BrokerKind for scheme in kind.value)
"""How a broker's address may begin."""
_KIND_OF_SCHEME: Final = {scheme: kind for kind in BrokerKind for scheme in kind.value}
_FORMS: Final = "amqp://, amqps://, redis://, rediss:// or unix://"


def broker_kind(url: str, variable: str = BROKER_URL_VARIABLE) -> BrokerKind:
    """Tell which kind of broker an address means; only the scheme is looked at.

    Raises:
        ConfigurationError: No kind of broker has such addresses.
    """
    kind = _KIND_OF_SCHEME.get(url.partition("://")[0]) if "://" in url else None
    if kind is None:
        raise _bad_scheme(variable, _FORMS)
    return kind


def check_broker_url(url: str, variable: str = BROKER_URL_VARIABLE) -> str:
    """Return the broker's address as it is.

    Raises:
        ConfigurationError: It cannot be understood; the sentence names the variable and shows nothing of the address.
    """
    kind = broker_kind(url, variable)
    match kind:
        case BrokerKind.RABBITMQ:
            for node in url.split(NODE_SEPARATOR):
                _check(node, variable, kind, _FORMS)
        case BrokerKind.REDIS:
            _check(url, variable, kind, _FORMS)
        case _:
            assert_never(kind)
    return url


def check_redis_url(url: str, variable: str = REDIS_URL_VARIABLE) -> str:
    """Return a Redis address as it is. Raises like `check_broker_url`."""
    return _check(url, variable, BrokerKind.REDIS, "redis://, rediss:// or unix://")


def redis_url(url: str) -> str:
    """Translate Valkey's and kombu's addresses (``valkey://``, ``redis+socket://``) into the form that redis-py reads."""
    for theirs, ours in _REDIS_SPELLINGS:
        if url.startswith(theirs):
            url = ours + url.removeprefix(theirs)
    if not url.startswith("unix://"):
        return url
    # The database's number is virtual_host to kombu, with or without a slash before it, and db to redis-py.
    return _VIRTUAL_HOST.sub(r"\g<before>db=", url)


def _check(url: str, variable: str, kind: BrokerKind, forms: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in kind.value:
        raise _bad_scheme(variable, forms)
    if not _is_plain(url, rest, needs_host=scheme not in _SOCKET_SCHEMES):
        raise ConfigurationError(f"{variable} cannot be understood: {_PERCENT_ENCODE}")
    return url


def _bad_scheme(variable: str, forms: str) -> ConfigurationError:
    return ConfigurationError(f"{variable} must be an address that starts with {forms}. If it does, {_PERCENT_ENCODE}")


def _is_plain(url: str, rest: str, *, needs_host: bool) -> bool:
    """Whether nothing in the address can be the tail of a password that was cut short by one of its characters."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text quotes what stands in the place of the port: a piece of the password
        return False
    if "#" in rest or "@" in parts.path or "@" in parts.query or rest.partition("/")[0].count("@") > 1:
        return False
    return not needs_host or (bool(parts.hostname) and port != 0)
