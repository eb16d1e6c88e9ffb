"""Who is looking: sessions of our own, the host platform's tokens, one-time sign-in links.

All three are JSON Web Tokens. Those that we make ourselves are signed with the dashboard's secret and name us as their
issuer and one purpose as their audience, so that none can be used as another.
"""

from __future__ import annotations

import datetime as dt
import logging
import secrets
import time
from threading import Lock
from typing import Any, Final

import msgspec
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from taximeter_dashboard.auth import claims as claim_rules
from taximeter_dashboard.auth.claims import EVERY_WORKSPACE, OPERATOR, OWNER, READER, ROLES, STAFF, Viewer
from taximeter_dashboard.auth.key_sources import KeySource, RemoteKeys, read_key_file
from taximeter_dashboard.errors import ClaimError, SignInNeededError
from taximeter_dashboard.settings import SHARED_KEY_ALGORITHMS, Settings

__all__ = ["EVERY_WORKSPACE", "OPERATOR", "OWNER", "READER", "ROLES", "STAFF", "Keys", "Session", "Viewer"]

log = logging.getLogger("taximeter_dashboard")

ISSUER: Final = "taximeter-dashboard"
LINK_SECONDS: Final = 24 * 3600
TRADED_LINK_SECONDS: Final = 300
"""For a link that a token was traded for: the browser follows it at once."""
CLOCK_SECONDS: Final = 30
"""By how much a host's clock may differ from ours."""
TOKEN_CHARACTERS_MAX: Final = 16_000
TELL_SECONDS: Final = 60.0
_CHECKED: Final = ("iss", "aud", "exp", "nbf", "iat", "sub")
_FAULTS: Final = (JoseError, ValueError, TypeError, KeyError, AttributeError)


class Session(msgspec.Struct, frozen=True):
    """A session that was read from its cookie; `number` names it, so that signing out can end it everywhere."""

    viewer: Viewer
    number: str
    ends_at: dt.datetime


class Keys:
    """Makes our own tokens and checks them and the host platform's.

    Raises:
        ConfigurationError: The key file cannot be read.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._own = OctKey.import_key(settings.dashboard_secret)
        self._shared = OctKey.import_key(settings.token_secret) if settings.token_secret else None
        self._public: KeySource | None = None
        if settings.token_keys_url:
            self._public = RemoteKeys(settings.token_keys_url)
        elif settings.token_keys:
            self._public = read_key_file(settings.token_keys)
        self._denials = Denials()

    def session(self, viewer: Viewer) -> str:
        """A session token for a cookie."""
        return self._make("session", viewer, self._settings.session_seconds)

    def read_session(self, token: str) -> Session:
        """The session of a cookie; whether it was ended is known to the database. Raises SignInNeededError."""
        viewer, claims = self._read(token, "session")
        return Session(viewer, str(claims["jti"]), dt.datetime.fromtimestamp(claims["exp"], dt.UTC))

    def sign_in_code(self, viewer: Viewer, seconds: int = LINK_SECONDS) -> str:
        """A code for a one-time sign-in link."""
        return self._make("sign-in", viewer, seconds)

    def read_sign_in_code(self, code: str) -> tuple[Viewer, str, dt.datetime]:
        """Viewer, number and end of a sign-in code; whether it was used is known to the database. Raises SignInNeededError."""
        viewer, claims = self._read(code, "sign-in")
        return viewer, str(claims["jti"]), dt.datetime.fromtimestamp(claims["exp"], dt.UTC)

    def read_host_token(self, token: str) -> Viewer:
        """The viewer that a host platform's token names.

        Raises:
            SignInNeededError: It does not hold: algorithm, signature, issuer, audience, time or claims. The sentence does
                not say more than it must.
            SignInUnavailableError: The host's keys cannot be fetched.
        """
        settings = self._settings
        if not settings.accepts_tokens:
            raise SignInNeededError("This token is not accepted here.")
        options = {
            "iss": {"essential": True, "value": settings.token_issuer},
            "aud": {"essential": True, "value": settings.token_audience},
            "exp": {"essential": True},
            "sub": {"essential": True},
        }
        try:
            claims = verify(token, settings.token_algorithms, self._public, self._shared, options)
            return claim_rules.viewer(settings, claims)
        except ClaimError as error:
            self._denials.tell(f"A token of {settings.token_issuer} is valid and was not accepted: {error}.")
            raise SignInNeededError(f"This token is valid, but {error}.") from error
        except _FAULTS as error:
            self._denials.tell(f"A token was not accepted: {_fault(error)}.")
            raise SignInNeededError(
                "This token does not hold: it may have expired, or be meant for another page."
            ) from error

    def _make(self, purpose: str, viewer: Viewer, seconds: int) -> str:
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": purpose,
            "iat": now,
            "exp": now + seconds,
            "jti": secrets.token_urlsafe(16),
            "sub": viewer.subject,
            "name": viewer.name,
            "roles": viewer.roles,
        }
        return jwt.encode({"alg": "HS256"}, claims, self._own)

    def _read(self, token: str, purpose: str) -> tuple[Viewer, dict[str, Any]]:
        options = {
            "iss": {"essential": True, "value": ISSUER},
            "aud": {"essential": True, "value": purpose},
            "exp": {"essential": True},
        }
        try:
            claims = verify(token, ("HS256",), None, self._own, options)
            return Viewer(claims["sub"], claims["name"], claims["roles"]), claims
        except _FAULTS as error:
            raise SignInNeededError("You are not signed in, or the sign-in has ended.") from error


class _TokenError(ValueError):
    """A token that cannot be checked; the sentence quotes nothing of it."""


class Denials:
    """Why tokens are not accepted, for the log: each reason once a minute, however many tokens a stranger sends."""

    def __init__(self) -> None:
        self._told_at: dict[str, float] = {}
        self._lock = Lock()

    def tell(self, sentence: str) -> None:
        """Log a reason, unless it was logged just now. It must come from a bounded set, and quote nothing of a token."""
        now = time.monotonic()
        with self._lock:
            told_at = self._told_at.get(sentence)
            if told_at is not None and now - told_at < TELL_SECONDS:
                return
            self._told_at[sentence] = now
        log.warning("%s", sentence)


def _fault(error: Exception) -> str:
    """What of a token does not hold, in words of ours: those of a library may quote what somebody sent."""
    if isinstance(error, _TokenError):
        return str(error)
    claim = getattr(error, "claim", None)
    words = error.error.replace("_", " ") if isinstance(error, JoseError) else ""
    return f"{words or 'it cannot be read'}{f', {claim}' if claim in _CHECKED else ''}"


def verify(
    token: str,
    algorithms: tuple[str, ...],
    public: KeySource | None,
    shared: OctKey | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """The claims of a token whose signature, algorithm, issuer, audience and times hold.

    The allow-list is by kind of key: a public key never checks a signature that was made with a shared one.

    Raises:
        JoseError, ValueError, TypeError, KeyError: It does not hold.
        SignInUnavailableError: The keys cannot be fetched.
    """
    if len(token) > TOKEN_CHARACTERS_MAX or not token.isascii():
        raise _TokenError(f"it has more than {TOKEN_CHARACTERS_MAX:,} characters, or some that are not ASCII")
    header = jws.extract_compact(token.encode()).headers()
    by_secret = header.get("alg") in SHARED_KEY_ALGORITHMS
    allowed = [name for name in algorithms if (name in SHARED_KEY_ALGORITHMS) == by_secret]
    if header.get("alg") not in allowed:
        raise _TokenError("its algorithm is not one of those that the settings name")
    key = shared if by_secret else public.key(header) if public is not None else None
    if key is None:
        raise _TokenError("the key that it names is not known")
    claims: dict[str, Any] = jwt.decode(token, key, algorithms=allowed).claims
    jwt.JWTClaimsRegistry(leeway=CLOCK_SECONDS, **options).validate(claims)
    return claims
