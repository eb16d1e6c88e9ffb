"""The dashboard's settings, read once from environment variables.

Each field ``x`` is the variable ``TAXIMETER_X``; docs/dashboard.md describes them, and a test holds the two together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from taximeter_dashboard import theme
from taximeter_dashboard.errors import SettingError
from taximeter_dashboard.fetching import safe_address
from taximeter_db import money
from taximeter_db.errors import AmountError
from taximeter_db.secret import Secret

PREFIX = "TAXIMETER_"
SECRET_CHARACTERS_MIN = 32
SHARED_KEY_ALGORITHMS = ("HS256", "HS384", "HS512")
ALGORITHMS = (
    *SHARED_KEY_ALGORITHMS,
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the dashboard needs to know."""

    database_url: str = field(repr=False)
    dashboard_secret: str = field(repr=False)
    """Signs sessions, sign-in links and cursors; at least 32 characters, the same for all processes."""
    dashboard_host: str = "127.0.0.1"
    dashboard_port: int = 8080
    dashboard_url: str = ""
    """Where people find the page, prefix included; empty: as the request says. Needed behind a proxy for OpenID Connect."""
    dashboard_session_hours: int = 12
    dashboard_sign_in_url: str = ""
    """Where the host signs people in; ``{back}`` stands for the page that they wanted."""
    dashboard_name: str = "Taximeter"
    dashboard_home_url: str = ""
    """Where the name in the header leads: the host's own application."""
    dashboard_logo: str = ""
    """A file with the host's logo, SVG or PNG."""
    dashboard_accent: str = ""
    dashboard_accent_dark: str = ""
    dashboard_header: str = ""
    dashboard_header_dark: str = ""
    dashboard_credit_url: str = ""
    """Where the host sells credit; ``{workspace}`` stands for the workspace's id."""
    dashboard_minimum_from: str = ""
    """How low an owner may set the minimum balance; empty: owners may not change it."""
    token_secret: str = field(default="", repr=False)
    token_keys: str = ""
    """A file with a JWKS or a PEM public key."""
    token_keys_url: str = ""
    """The address of a JWKS."""
    token_algorithms: tuple[str, ...] = ()
    token_issuer: str = ""
    token_audience: str = ""
    token_cookie: str = ""
    """A cookie in which the host's application, on the same site, leaves the person's token."""
    token_workspaces_claim: str = "workspaces"  # noqa: S105 - the name of a claim
    token_role_claim: str = "role"  # noqa: S105 - the name of a claim
    token_name_claim: str = "name"  # noqa: S105 - the name of a claim
    token_owner_roles: tuple[str, ...] = ("owner",)
    token_reader_roles: tuple[str, ...] = ("reader",)
    token_staff_roles: tuple[str, ...] = ("staff",)
    token_operator_roles: tuple[str, ...] = ("operator",)
    oidc_issuer: str = ""
    oidc_client_id: str = ""
    oidc_client_secret: str = field(default="", repr=False)
    oidc_scopes: str = "openid profile"
    oidc_algorithms: tuple[str, ...] = ("RS256", "ES256")
    minimum_balance: str = "-0.12"
    low_balance: str = "0"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read the settings from environment variables.

        Raises:
            SettingError: A variable is missing or makes no sense; the sentence names it and quotes no secret.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for one in fields(cls):
            text = environ.get(PREFIX + one.name.upper(), "")
            if text:
                values[one.name] = _read(one.name, text)
        for name in ("database_url", "dashboard_secret"):
            if name not in values:
                raise SettingError(f"{PREFIX}{name.upper()} is not set. See docs/dashboard.md.")
        settings = cls(**values)
        settings.check()
        return settings

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not one.repr and isinstance(value, str):
                object.__setattr__(self, one.name, Secret(value))

    def check(self) -> None:
        """Refuse combinations that would not be safe.

        Raises:
            SettingError: The sentence says which and why.
        """
        if len(self.dashboard_secret) < SECRET_CHARACTERS_MIN:
            raise SettingError(
                f"{PREFIX}DASHBOARD_SECRET must have at least {SECRET_CHARACTERS_MIN} random characters."
                " `python -c 'import secrets; print(secrets.token_urlsafe(48))'` makes some."
            )
        if self.token_keys and self.token_keys_url:
            raise SettingError(f"Set {PREFIX}TOKEN_KEYS or {PREFIX}TOKEN_KEYS_URL, not both.")
        if self.accepts_tokens and not (self.token_issuer and self.token_audience and self.token_algorithms):
            raise SettingError(
                f"To accept a host's tokens, set {PREFIX}TOKEN_ISSUER, {PREFIX}TOKEN_AUDIENCE and"
                f" {PREFIX}TOKEN_ALGORITHMS: a token that is not meant for this page must not open it."
            )
        for algorithm in self.token_algorithms:
            if algorithm not in ALGORITHMS:
                raise SettingError(f"{PREFIX}TOKEN_ALGORITHMS: {algorithm[:20]!r} is none of {', '.join(ALGORITHMS)}.")
            if algorithm in SHARED_KEY_ALGORITHMS and not self.token_secret:
                raise SettingError(f"{PREFIX}TOKEN_ALGORITHMS names {algorithm}, which needs {PREFIX}TOKEN_SECRET.")
        if self.token_secret and len(self.token_secret) < SECRET_CHARACTERS_MIN:
            raise SettingError(f"{PREFIX}TOKEN_SECRET must have at least {SECRET_CHARACTERS_MIN} random characters.")
        if self.token_algorithms and not (self.token_keys or self.token_keys_url):
            public = [name for name in self.token_algorithms if name not in SHARED_KEY_ALGORITHMS]
            if public and self.accepts_tokens:
                raise SettingError(
                    f"{PREFIX}TOKEN_ALGORITHMS names {public[0]}, which needs {PREFIX}TOKEN_KEYS or {PREFIX}TOKEN_KEYS_URL."
                )
        self._check_addresses()
        theme.check(self)

    def _check_addresses(self) -> None:
        for name in ("token_keys_url", "oidc_issuer"):
            value = getattr(self, name)
            if value and not safe_address(value):
                raise SettingError(
                    f"{PREFIX}{name.upper()} must be an https address: who can change what is read there can sign in as anybody."
                )
        for name in ("dashboard_url", "dashboard_home_url", "dashboard_credit_url", "dashboard_sign_in_url"):
            value = getattr(self, name)
            if value and not value.startswith(("https://", "http://", "/")):
                raise SettingError(f"{PREFIX}{name.upper()} must be an address or a path of this host.")
        if self.oidc_issuer and not self.oidc_client_id:
            raise SettingError(f"{PREFIX}OIDC_ISSUER needs {PREFIX}OIDC_CLIENT_ID.")
        if self.oidc_issuer and not self.dashboard_url:
            raise SettingError(
                f"{PREFIX}OIDC_ISSUER needs {PREFIX}DASHBOARD_URL, the address where people find this page: whom the"
                " provider sends back must not depend on the Host header of a request."
            )
        for algorithm in self.oidc_algorithms:
            if algorithm not in ALGORITHMS or algorithm in SHARED_KEY_ALGORITHMS:
                raise SettingError(f"{PREFIX}OIDC_ALGORITHMS: {algorithm[:20]!r} is no algorithm with a public key.")
        if "openid" not in self.oidc_scopes.split():
            raise SettingError(f"{PREFIX}OIDC_SCOPES must hold openid.")

    @property
    def accepts_tokens(self) -> bool:
        """Whether a host platform's tokens can sign somebody in."""
        return bool(self.token_secret or self.token_keys or self.token_keys_url)

    @property
    def session_seconds(self) -> int:
        """How long a sign-in lasts."""
        return self.dashboard_session_hours * 3600

    @property
    def default_limits(self) -> tuple[int, int]:
        """Minimum balance and low-balance threshold of a workspace that was never seen, in picodollars."""
        return money.parse_usd(self.minimum_balance), money.parse_usd(self.low_balance)

    @property
    def minimum_from(self) -> int | None:
        """How low an owner may set the minimum, in picodollars; None: not at all."""
        return money.parse_usd(self.dashboard_minimum_from) if self.dashboard_minimum_from else None


def _read(name: str, text: str) -> Any:
    variable = PREFIX + name.upper()
    if name == "dashboard_port":
        if not (text.isascii() and text.isdigit()) or int(text[:9]) > 65535:
            raise SettingError(f"{variable}: {text[:20]!r} is no port number.")
        return int(text)
    if name == "dashboard_session_hours":
        if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= 24 * 30:
            raise SettingError(f"{variable}: a number of hours from 1 to 720 is needed.")
        return int(text)
    if name.endswith(("_algorithms", "_roles")):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if name in {"minimum_balance", "low_balance", "dashboard_minimum_from"}:
        try:
            money.parse_usd(text)
        except AmountError as error:
            raise SettingError(f"{variable}: {error}") from None
    return text
