"""OpenID Connect: the authorization code flow with PKCE, state and nonce, and what a provider must hold to.

What a flow must remember between its two ends travels in an encrypted cookie of the browser that began it, so that any
process can finish it and no other browser can.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from threading import Lock
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from taximeter_dashboard.auth import claims as claim_rules
from taximeter_dashboard.auth.addresses import safe_address
from taximeter_dashboard.auth.claims import Viewer
from taximeter_dashboard.auth.fetching import fetch_json
from taximeter_dashboard.auth.key_sources import RemoteKeys
from taximeter_dashboard.auth.viewers import Denials, verify
from taximeter_dashboard.errors import ClaimError, FetchError, SignInNeededError, SignInUnavailableError
from taximeter_dashboard.settings import Settings
from taximeter_db.secret import Secret

FLOW_SECONDS: Final = 600
METADATA_SECONDS: Final = 3600.0
FAILED: Final = "The sign-in did not succeed. Begin again."
_ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri")


class Flow(msgspec.Struct, frozen=True):
    """A sign-in under way."""

    state: str
    nonce: str
    verifier: str
    redirect_uri: str
    back: str
    ends_at: int


class Provider:
    """The provider that the settings name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._metadata: dict[str, Any] = {}
        self._read_at: float | None = None
        self._keys = RemoteKeys(lambda: str(self.metadata()["jwks_uri"]))
        self._denials = Denials()
        self._cookie_key = OctKey.import_key(
            hmac.digest(settings.dashboard_secret.encode(), b"oidc flow", hashlib.sha256)
        )

    def metadata(self) -> dict[str, Any]:
        """The provider's own description, kept for an hour. Raises SignInUnavailableError."""
        with self._lock:
            now = time.monotonic()
            if self._read_at is None or now - self._read_at > METADATA_SECONDS:
                issuer = self._settings.oidc_issuer
                try:
                    found = fetch_json(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
                    _check_metadata(found, issuer)
                except FetchError as error:
                    if self._read_at is None:
                        raise SignInUnavailableError from error
                else:
                    self._metadata = found
                self._read_at = now
            return self._metadata

    def begin(self, redirect_uri: str, back: str) -> tuple[str, str]:
        """Where to send the browser, and the cookie to send with it. Raises SignInUnavailableError."""
        flow = Flow(
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            redirect_uri=redirect_uri,
            back=back,
            ends_at=int(time.time()) + FLOW_SECONDS,
        )
        challenge = base64.urlsafe_b64encode(hashlib.sha256(flow.verifier.encode()).digest()).decode().rstrip("=")
        query = {
            "response_type": "code",
            "client_id": self._settings.oidc_client_id,
            "redirect_uri": redirect_uri,
            "scope": self._settings.oidc_scopes,
            "state": flow.state,
            "nonce": flow.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        address = str(self.metadata()["authorization_endpoint"])
        cookie = jwe.encrypt_compact({"alg": "dir", "enc": "A256GCM"}, msgspec.json.encode(flow), self._cookie_key)
        return f"{address}{'&' if '?' in address else '?'}{urlencode(query)}", cookie

    def finish(self, cookie: str, answer: Mapping[str, str]) -> tuple[Viewer, str]:
        """Who signed in, and the page that they wanted.

        Raises:
            SignInNeededError: The flow was not begun by this browser, has ended, was refused, or what the provider sent
                does not hold.
            SignInUnavailableError: The provider does not answer.
        """
        flow = self._flow(cookie)
        if not hmac.compare_digest(flow.state.encode(), answer.get("state", "").encode()):
            raise SignInNeededError(FAILED)
        # RFC 9207: an answer of another provider must not be taken for this one's.
        if answer.get("iss", self._settings.oidc_issuer) != self._settings.oidc_issuer or not answer.get("code"):
            raise SignInNeededError("The sign-in was refused or broken off. Begin again.")
        try:
            tokens = self._exchange(flow, answer["code"])
        except FetchError as error:
            raise SignInNeededError(FAILED) from error
        try:
            claims = self._claims(str(tokens["id_token"]), flow.nonce)
            claims = self._with_user_info(claims, tokens)
            return claim_rules.viewer(self._settings, claims), flow.back
        except ClaimError as error:
            self._denials.tell(f"A sign-in by {self._settings.oidc_issuer} was not accepted: {error}.")
            raise SignInNeededError(f"You are signed in there, but {error}. Ask whoever runs this page.") from error
        except (JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise SignInNeededError(FAILED) from error

    def end_session_address(self, back: str) -> str | None:
        """Where the provider's own session can be ended; None where it has no such place, or does not answer."""
        try:
            address = self.metadata().get("end_session_endpoint")
        except SignInUnavailableError:
            return None
        if not isinstance(address, str) or not safe_address(address):
            return None
        query = {"client_id": self._settings.oidc_client_id, "post_logout_redirect_uri": back}
        return f"{address}{'&' if '?' in address else '?'}{urlencode(query)}"

    def _flow(self, cookie: str) -> Flow:
        try:
            plain = jwe.decrypt_compact(cookie, self._cookie_key, algorithms=["dir", "A256GCM"]).plaintext
            flow = msgspec.json.decode(plain or b"", type=Flow)
        except (JoseError, ValueError, TypeError, msgspec.MsgspecError) as error:
            raise SignInNeededError("This sign-in was begun in another browser, or has ended. Begin again.") from error
        if flow.ends_at < time.time():
            raise SignInNeededError("The sign-in took too long. Begin again.")
        return flow

    def _exchange(self, flow: Flow, code: str) -> dict[str, Any]:
        settings = self._settings
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": flow.redirect_uri,
            "client_id": settings.oidc_client_id,
            "code_verifier": flow.verifier,
        }
        basic = None
        if settings.oidc_client_secret:
            known = self.metadata().get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
            if "client_secret_basic" in known:
                basic = (settings.oidc_client_id, Secret(settings.oidc_client_secret).reveal())
            else:
                form["client_secret"] = Secret(settings.oidc_client_secret).reveal()
        return fetch_json(str(self.metadata()["token_endpoint"]), form=form, basic=basic)

    def _claims(self, id_token: str, nonce: str) -> dict[str, Any]:
        settings = self._settings
        options = {
            "iss": {"essential": True, "value": settings.oidc_issuer},
            "aud": {"essential": True, "value": settings.oidc_client_id},
            "exp": {"essential": True},
            "iat": {"essential": True},
            "sub": {"essential": True},
        }
        claims = verify(id_token, settings.oidc_algorithms, self._keys, None, options)
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
            raise ValueError("nonce")
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if claims.get("azp", None if several else settings.oidc_client_id) != settings.oidc_client_id:
            raise ValueError("azp")
        return claims

    def _with_user_info(self, claims: dict[str, Any], tokens: Mapping[str, Any]) -> dict[str, Any]:
        """The claims, completed by the provider's user info where the token leaves the wanted ones out."""
        settings = self._settings
        wanted = (settings.token_role_claim, settings.token_workspaces_claim, settings.token_name_claim)
        address = self.metadata().get("userinfo_endpoint")
        if all(claim_rules.claim(claims, name) is not None for name in wanted) or "access_token" not in tokens:
            return claims
        if not isinstance(address, str) or not safe_address(address):
            return claims
        try:
            more = fetch_json(address, bearer=str(tokens["access_token"]))
        except FetchError as error:
            raise SignInUnavailableError from error
        if more.get("sub") != claims["sub"]:  # OpenID Connect Core, 5.3.2
            raise ValueError("sub")
        return {**more, **claims}


def _check_metadata(found: Mapping[str, Any], issuer: str) -> None:
    if found.get("issuer") != issuer:
        raise FetchError("The provider names another issuer than the settings do.")
    for name in _ENDPOINTS:
        if not isinstance(found.get(name), str) or not safe_address(found[name]):
            raise FetchError(f"The provider's {name} is missing or no https address.")
