"""Who is looking: sessions of our own, the host platform's tokens, one-time sign-in links.

All three are JSON Web Tokens. Those that we make ourselves are signed with the dashboard's secret and name us as their
issuer and one purpose as their audience, so that none can be used as another.
"""

from __future__ import annotations

import datetime as dt
import json
import secrets
import time
from pathlib import Path
from typing import Any, Final

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey

from taximeter_dashboard.errors import SettingError, SignInNeeded
from taximeter_dashboard.settings import SHARED_KEY_ALGORITHMS, Settings

OWNER: Final = "owner"
STAFF: Final = "staff"
OPERATOR: Final = "operator"
ROLES: Final = (OWNER, STAFF, OPERATOR)
EVERY_WORKSPACE: Final = "*"
ISSUER: Final = "taximeter-dashboard"
SESSION_SECONDS: Final = 12 * 3600
LINK_SECONDS: Final = 24 * 3600
CLOCK_SECONDS: Final = 30
"""By how much a host's clock may differ from ours."""
_TOKEN_CHARACTERS_MAX: Final = 16_000


class Viewer(msgspec.Struct, frozen=True):
    """Somebody who is signed in. `roles` maps workspace ids, or "*" for every one, to a role."""

    subject: str
    name: str
    roles: dict[str, str]

    def role(self, workspace_id: str) -> str | None:
        """The role in a workspace, None where there is none."""
        return self.roles.get(workspace_id) or self.roles.get(EVERY_WORKSPACE)

    @property
    def workspace_ids(self) -> list[str] | None:
        """The workspaces they belong to; None: every one."""
        return None if EVERY_WORKSPACE in self.roles else sorted(self.roles)


class Keys:
    """Makes our own tokens and checks them and the host platform's.

    Raises:
        SettingError: The key file cannot be read.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._own = OctKey.import_key(settings.dashboard_secret)
        self._shared = OctKey.import_key(settings.token_secret) if settings.token_secret else None
        self._public = _read_keys(settings.token_keys) if settings.token_keys else None

    def session(self, viewer: Viewer) -> str:
        """A session token for a cookie."""
        return self._make("session", viewer, SESSION_SECONDS)

    def read_session(self, token: str) -> Viewer:
        """The viewer of a session cookie. Raises SignInNeeded."""
        return self._read(token, "session")[0]

    def sign_in_code(self, viewer: Viewer) -> str:
        """A code for a one-time sign-in link."""
        return self._make("sign-in", viewer, LINK_SECONDS)

    def read_sign_in_code(self, code: str) -> tuple[Viewer, str, dt.datetime]:
        """Viewer, number and end of a sign-in code; whether it was used is known to the database. Raises SignInNeeded."""
        viewer, claims = self._read(code, "sign-in")
        return viewer, str(claims["jti"]), dt.datetime.fromtimestamp(claims["exp"], dt.UTC)

    def read_host_token(self, token: str) -> Viewer:
        """The viewer that a host platform's token names.

        Raises:
            SignInNeeded: It does not hold: algorithm, signature, issuer, audience, time or claims. The sentence does
                not say more than it must.
        """
        settings = self._settings
        if not settings.accepts_tokens or len(token) > _TOKEN_CHARACTERS_MAX:
            raise SignInNeeded("This token is not accepted here.")
        registry = jwt.JWTClaimsRegistry(
            leeway=CLOCK_SECONDS,
            iss={"essential": True, "value": settings.token_issuer},
            aud={"essential": True, "value": settings.token_audience},
            exp={"essential": True},
            sub={"essential": True},
        )
        try:
            # The allow-list is by kind of key: a public key never checks a signature made with a shared one.
            shared = _algorithm(token) in SHARED_KEY_ALGORITHMS
            key = self._shared if shared else self._public
            allowed = [name for name in settings.token_algorithms if (name in SHARED_KEY_ALGORITHMS) == shared]
            if key is None or not allowed:
                raise SignInNeeded("This token is not accepted here.")
            claims = jwt.decode(token, key, algorithms=allowed).claims
            registry.validate(claims)
            return self._viewer(claims)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise SignInNeeded(
                "This token does not hold: it may have expired, or be meant for another page."
            ) from error

    def _viewer(self, claims: dict[str, Any]) -> Viewer:
        settings = self._settings
        subject, role = claims["sub"], claims.get(settings.token_role_claim)
        workspaces = claims.get(settings.token_workspaces_claim, [])
        if not isinstance(subject, str) or not subject:
            raise ValueError("sub")
        if role == OPERATOR:
            roles = {EVERY_WORKSPACE: OPERATOR}
        elif isinstance(workspaces, dict):
            roles = {str(name): kind for name, kind in workspaces.items() if kind in {OWNER, STAFF}}
        elif isinstance(workspaces, list) and role in {OWNER, STAFF}:
            roles = {str(name): role for name in workspaces}
        else:
            raise ValueError("roles")
        # Every workspace at once is for operators, whose looks are logged; a host must name those of an owner.
        if role != OPERATOR:
            roles.pop(EVERY_WORKSPACE, None)
        return Viewer(subject[:255], str(claims.get(settings.token_name_claim) or subject)[:255], roles)

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
        registry = jwt.JWTClaimsRegistry(
            iss={"essential": True, "value": ISSUER},
            aud={"essential": True, "value": purpose},
            exp={"essential": True},
        )
        try:
            claims = jwt.decode(token, self._own, algorithms=["HS256"]).claims
            registry.validate(claims)
            return Viewer(claims["sub"], claims["name"], claims["roles"]), claims
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise SignInNeeded("You are not signed in, or the sign-in has ended.") from error


def _algorithm(token: str) -> str:
    header = token.partition(".")[0]
    from base64 import urlsafe_b64decode

    value = json.loads(urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    return str(value.get("alg")) if isinstance(value, dict) else ""


def _read_keys(path: str) -> KeySet | RSAKey | ECKey | OKPKey:
    try:
        text = Path(path).read_text(encoding="utf-8")
        if text.lstrip().startswith("{"):
            return KeySet.import_key_set(json.loads(text))
    except (OSError, ValueError, JoseError) as error:
        raise SettingError(f"TAXIMETER_TOKEN_KEYS: {path} cannot be read as a JWKS: {type(error).__name__}.") from error
    for kind in (RSAKey, ECKey, OKPKey):
        try:
            return kind.import_key(text)
        except (ValueError, TypeError, JoseError):
            continue
    raise SettingError(f"TAXIMETER_TOKEN_KEYS: {path} is neither a JWKS nor a PEM key.")
