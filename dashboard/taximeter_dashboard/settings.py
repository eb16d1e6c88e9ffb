"""The page's settings. docs/settings.md describes each; `taximeter_db.settings` reads them."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from taximeter_dashboard.auth.addresses import safe_address
from taximeter_dashboard.theme import Theme
from taximeter_db import money
from taximeter_db.addresses import REDIS_SCHEMES, address
from taximeter_db.errors import ConfigurationError
from taximeter_db.settings import PREFIX, LedgerSettings, amount, exclusive, integer, setting, words

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
class Settings(LedgerSettings):
    """What the dashboard needs to know."""

    redis_url: str = setting("", parse=address(*REDIS_SCHEMES), secret=True)
    """Where holds are; empty: the page does not show them."""
    dashboard_secret: str = setting(secret=True)
    """Signs sessions, sign-in links and cursors; at least 32 characters, the same for all processes."""
    dashboard_host: str = setting("127.0.0.1")
    dashboard_port: int = setting(8080, parse=integer(0, 65535))
    dashboard_url: str = setting("")
    """Where people find the page, prefix included; empty: as the request says. Needed behind a proxy for OpenID Connect."""
    dashboard_session_hours: int = setting(12, parse=integer(1, 24 * 30))
    dashboard_sign_in_url: str = setting("")
    """Where the host signs people in; ``{back}`` stands for the page that they wanted."""
    dashboard_name: str = setting("Taximeter")
    dashboard_home_url: str = setting("")
    """Where the name in the header leads: the host's own application."""
    dashboard_logo: str = setting("")
    """A file with the host's logo, SVG or PNG."""
    dashboard_accent: str = setting("")
    dashboard_accent_dark: str = setting("")
    dashboard_header: str = setting("")
    dashboard_header_dark: str = setting("")
    dashboard_credit_url: str = setting("")
    """Where the host sells credit; ``{workspace}`` stands for the workspace's id."""
    dashboard_minimum_from: Decimal | None = setting(None, parse=amount)  # noqa: RUF009 -- it returns a field()
    """How low an owner may set the minimum balance; empty: owners may not change it."""
    api_requests_per_minute: int = setting(1_200, parse=integer(0, 1_000_000))
    """How many requests one caller of the JSON API may make; 0: any number. Counted by each process for itself."""
    token_secret: str = setting("", secret=True)
    token_keys: str = setting("")
    """A file with a JWKS or a PEM public key."""
    token_keys_url: str = setting("")
    """The address of a JWKS."""
    token_algorithms: tuple[str, ...] = setting((), parse=words)
    token_issuer: str = setting("")
    token_audience: str = setting("")
    token_cookie: str = setting("")
    """A cookie in which the host's application, on the same site, leaves the person's token."""
    token_workspaces_claim: str = setting("workspaces")
    token_role_claim: str = setting("role")
    token_name_claim: str = setting("name")
    token_owner_roles: tuple[str, ...] = setting(("owner",), parse=words)
    token_reader_roles: tuple[str, ...] = setting(("reader",), parse=words)
    token_staff_roles: tuple[str, ...] = setting(("staff",), parse=words)
    token_operator_roles: tuple[str, ...] = setting(("operator",), parse=words)
    oidc_issuer: str = setting("")
    oidc_client_id: str = setting("")
    oidc_client_secret: str = setting("", secret=True)
    oidc_scopes: str = setting("openid profile")
    oidc_algorithms: tuple[str, ...] = setting(("RS256", "ES256"), parse=words)

    def check(self) -> None:
        """Reject combinations that contradict one another or would not be safe.

        Raises:
            ConfigurationError: The sentence says which and why.
        """
        super().check()
        if len(self.dashboard_secret) < SECRET_CHARACTERS_MIN:
            raise ConfigurationError(
                f"{PREFIX}DASHBOARD_SECRET must have at least {SECRET_CHARACTERS_MIN} random characters."
                " `python -c 'import secrets; print(secrets.token_urlsafe(48))'` makes some."
            )
        exclusive(self, "token_keys", "token_keys_url")
        if self.accepts_tokens and not (self.token_issuer and self.token_audience and self.token_algorithms):
            raise ConfigurationError(
                f"To accept a host's tokens, set {PREFIX}TOKEN_ISSUER, {PREFIX}TOKEN_AUDIENCE and"
                f" {PREFIX}TOKEN_ALGORITHMS: a token that is not meant for this page must not open it."
            )
        for algorithm in self.token_algorithms:
            if algorithm not in ALGORITHMS:
                raise ConfigurationError(
                    f"{PREFIX}TOKEN_ALGORITHMS: {algorithm[:20]!r} is not one of {', '.join(ALGORITHMS)}."
                )
            if algorithm in SHARED_KEY_ALGORITHMS and not self.token_secret:
                raise ConfigurationError(
                    f"{PREFIX}TOKEN_ALGORITHMS names {algorithm}, which needs {PREFIX}TOKEN_SECRET."
                )
        if self.token_secret and len(self.token_secret) < SECRET_CHARACTERS_MIN:
            raise ConfigurationError(
                f"{PREFIX}TOKEN_SECRET must have at least {SECRET_CHARACTERS_MIN} random characters."
            )
        if self.token_algorithms and not (self.token_keys or self.token_keys_url):
            public = [name for name in self.token_algorithms if name not in SHARED_KEY_ALGORITHMS]
            if public and self.accepts_tokens:
                raise ConfigurationError(
                    f"{PREFIX}TOKEN_ALGORITHMS names {public[0]}, which needs {PREFIX}TOKEN_KEYS or {PREFIX}TOKEN_KEYS_URL."
                )
        self._check_addresses()
        self.theme.check()

    def _check_addresses(self) -> None:
        for name in ("token_keys_url", "oidc_issuer"):
            value = getattr(self, name)
            if value and not safe_address(value):
                raise ConfigurationError(
                    f"{PREFIX}{name.upper()} must be an https address: who can change what is read there can sign in as anybody."
                )
        for name in ("dashboard_url", "dashboard_home_url", "dashboard_credit_url", "dashboard_sign_in_url"):
            value = getattr(self, name)
            if value and not value.startswith(("https://", "http://", "/")):
                raise ConfigurationError(f"{PREFIX}{name.upper()} must be an address or a path of this host.")
        if self.oidc_issuer and not self.oidc_client_id:
            raise ConfigurationError(f"{PREFIX}OIDC_ISSUER needs {PREFIX}OIDC_CLIENT_ID.")
        if self.oidc_issuer and not self.dashboard_url:
            raise ConfigurationError(
                f"{PREFIX}OIDC_ISSUER needs {PREFIX}DASHBOARD_URL, the address where people find this page: whom the"
                " provider sends back must not depend on the Host header of a request."
            )
        for algorithm in self.oidc_algorithms:
            if algorithm not in ALGORITHMS or algorithm in SHARED_KEY_ALGORITHMS:
                raise ConfigurationError(
                    f"{PREFIX}OIDC_ALGORITHMS: {algorithm[:20]!r} is not an algorithm with a public key."
                )
        if "openid" not in self.oidc_scopes.split():
            raise ConfigurationError(f"{PREFIX}OIDC_SCOPES must hold openid.")

    @property
    def theme(self) -> Theme:
        """The host's colours and logo."""
        return Theme(
            accent=self.dashboard_accent,
            accent_dark=self.dashboard_accent_dark,
            header=self.dashboard_header,
            header_dark=self.dashboard_header_dark,
            logo=self.dashboard_logo,
        )

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
        return money.to_pico(self.minimum_balance), money.to_pico(self.low_balance)

    @property
    def minimum_from(self) -> int | None:
        """How low an owner may set the minimum, in picodollars; None: not at all."""
        return None if self.dashboard_minimum_from is None else money.to_pico(self.dashboard_minimum_from)
