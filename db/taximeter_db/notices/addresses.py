"""Which addresses notices may be sent to.

An owner who may name any address could have the worker speak to what only the worker can reach: the cloud's metadata, a
database, the broker. So only public addresses are taken. Names are resolved when a notice is sent, and the address that is
then connected to is the one that was checked: see `taximeter_worker.notices`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import Final
from urllib.parse import SplitResult, urlsplit

from taximeter_db.errors import SettingsError

ADDRESS_MAX: Final = 2_048
OWNERS_SCHEMES: Final = frozenset(
    (
        *(
            "mailto",
            "mailtos",
            "slack",
            "msteams",
            "workflows",
            "discord",
            "gchat",
            "tgram",
            "zulip",
            "mmost",
            "mmosts",
        ),
        *(
            "rocket",
            "rockets",
            "matrix",
            "matrixs",
            "wxteams",
            "pagerduty",
            "opsgenie",
            "twilio",
            "pover",
            "ntfy",
            "ntfys",
        ),
    )
)
"""Of Apprise's services, those that a workspace's owner may name. An operator may name any."""
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*)://", re.ASCII | re.IGNORECASE)


def is_allowed(address: str, networks: Collection[Network] = ()) -> bool:
    """Whether a numeric address is public, or lies in one of these networks. What cannot be read is not."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return any(parsed in network for network in networks) or all(map(_is_public, _meant_by(parsed)))


def _is_public(address: _Address) -> bool:
    return address.is_global and not address.is_multicast and not address.is_reserved


def _meant_by(address: _Address) -> list[_Address]:
    """The address, and the IPv4 address inside it that a router or a translator would turn to."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    inner: list[_Address] = []
    if address.sixtofour is not None:
        inner.append(address.sixtofour)
    if address.teredo is not None:
        inner += address.teredo
    if address in _NAT64:
        return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    return [address, *inner]


def check_webhook(url: str, *, allow_private: bool) -> str:
    """What tells people which webhook this is: scheme and host. Its path may be a secret.

    Raises:
        SettingsError: Notices may not be sent to it. Nothing of it is quoted.
    """
    parts = _split(url)
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise SettingsError("A webhook's address begins with https:// and names a host.")
    if parts.username is not None or parts.password is not None:
        raise SettingsError("A webhook's address holds no user and no password: notices are signed instead.")
    if parts.scheme == "http" and not allow_private:
        raise SettingsError(
            "A webhook's address begins with https://: over http:// anybody on the way could read notices."
        )
    host = parts.hostname
    private = _is_numeric(host) or host == "localhost" or host.endswith(".localhost")
    if private and not allow_private and not is_allowed(host):
        raise SettingsError("That address is private. Notices go to public addresses only.")
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"


def check_apprise(url: str, *, any_service: bool) -> str:
    """What tells people which service this is: its scheme. All that follows may be secret.

    Raises:
        SettingsError: It is not written like one of Apprise's addresses, or not a service for an owner. Nothing is quoted.
    """
    match = _SCHEME.match(_checked(url))
    if match is None:
        raise SettingsError("Write the address as Apprise knows it, such as mailtos://user:password@example.com.")
    scheme = match[1].lower()
    if not any_service and scheme not in OWNERS_SCHEMES:
        raise SettingsError(f"Notices can be sent to {', '.join(sorted(OWNERS_SCHEMES))}; an operator can add others.")
    return f"{scheme}://…"


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(_checked(url))
        parts.port  # noqa: B018 -- it raises where it is none
    except ValueError:
        raise SettingsError("That is not a web address.") from None
    return parts


def _checked(url: str) -> str:
    if len(url) > ADDRESS_MAX or not url.isascii() or not url.isprintable() or " " in url:
        raise SettingsError(
            f"An address has at most {ADDRESS_MAX} characters, all of them printable ASCII without blanks."
        )
    return url


def _is_numeric(host: str) -> bool:
    """Whether a resolver would read a host as a number: 127.1 and 0x7f000001 are, too."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return re.fullmatch(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}\.?", host, re.IGNORECASE) is not None
    return True
