"""Public keys of whoever signs the tokens: from a file, or from an address that is asked again when keys change."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, Final, Protocol

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, OKPKey, RSAKey

from taximeter_dashboard.auth.fetching import fetch_json
from taximeter_dashboard.errors import FetchError, SignInUnavailableError
from taximeter_db.errors import ConfigurationError

FRESH_SECONDS: Final = 600.0
"""After this long a key set is asked for again, so that a key that was withdrawn stops opening doors."""
STALE_SECONDS: Final = 3600.0
"""For this long an old key set serves on while its server does not answer."""
RETRY_SECONDS: Final = 10.0
"""Between two requests that a token with an unknown key can cause: strangers cannot make us hammer the server."""
KEYS_MAX: Final = 100
_KINDS: Final = {"RSA": ("RS", "PS"), "EC": ("ES",), "OKP": ("Ed",)}

log = logging.getLogger("taximeter_dashboard")


class KeySource(Protocol):
    """Finds the public key for a token's header; None where there is none."""

    def key(self, header: Mapping[str, Any]) -> Key | None:
        """May raise SignInUnavailableError."""


class FixedKeys:
    """Keys that do not change while the process runs."""

    def __init__(self, keys: list[Key]) -> None:
        self._keys = keys

    def key(self, header: Mapping[str, Any]) -> Key | None:
        """The key that a header names."""
        return choose(self._keys, header)


class RemoteKeys:
    """The key set at an address, kept for some minutes and fetched again when a token names a key that is not in it."""

    def __init__(self, url: str | Callable[[], str]) -> None:
        self._url = url
        self._lock = Lock()
        self._keys: list[Key] = []
        self._fetched_at: float | None = None
        self._tried_at: float | None = None

    def key(self, header: Mapping[str, Any]) -> Key | None:
        """The key that a header names.

        Raises:
            SignInUnavailableError: There is no key set, or none that is new enough, and its server does not answer.
        """
        with self._lock:
            now = time.monotonic()
            if self._fetched_at is None or now - self._fetched_at > FRESH_SECONDS:
                self._refresh(now)
            found = choose(self._keys, header)
            if found is None and self._fetched_at != now:
                self._refresh(now)
                found = choose(self._keys, header)
            return found

    def _refresh(self, now: float) -> None:
        """Fetch, at most once in a while; keep what there is where that fails, as long as it is not too old."""
        if self._tried_at is None or now - self._tried_at >= RETRY_SECONDS:
            self._tried_at = now
            try:
                url = self._url if isinstance(self._url, str) else self._url()
                self._keys = import_keys(fetch_json(url))
                self._fetched_at = now
            except (FetchError, SignInUnavailableError) as error:
                log.warning("the keys of the tokens' signer could not be fetched: %s", error)
        if self._fetched_at is None or now - self._fetched_at > STALE_SECONDS:
            raise SignInUnavailableError


def import_keys(document: Mapping[str, Any]) -> list[Key]:
    """The public signing keys of a JWKS; what is of another kind, or for encryption, is left out.

    Raises:
        FetchError: It is not a JWKS.
    """
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise FetchError("The key set has no list of keys.")
    found = []
    for entry in entries[:KEYS_MAX]:
        # A shared key has no business in a public set: whoever reads the set could sign with it.
        if not isinstance(entry, dict) or entry.get("kty") not in _KINDS or entry.get("use", "sig") != "sig":
            continue
        try:
            found.append(JWKRegistry.import_key(entry))
        except (JoseError, ValueError, TypeError, KeyError):
            continue
    return found


def choose(keys: list[Key], header: Mapping[str, Any]) -> Key | None:
    """The key with the header's ``kid``; without one, the only key of the algorithm's kind."""
    algorithm, kid = str(header.get("alg")), header.get("kid")
    fitting = [
        key
        for key in keys
        if algorithm.startswith(_KINDS.get(key.key_type, ("?",))) and key.get("alg") in {None, algorithm}
    ]
    if kid is not None:
        # A key from a PEM file has no name of its own and answers to any.
        named = [key for key in fitting if key.get("kid") == kid]
        return named[0] if named else next((key for key in fitting if len(keys) == 1 and key.get("kid") is None), None)
    return fitting[0] if len(fitting) == 1 else None


def read_key_file(path: str) -> FixedKeys:
    """The keys in a file, a JWKS or a PEM public key.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        if text.lstrip().startswith("{"):
            keys = import_keys(json.loads(text))
            if not keys:
                raise ConfigurationError(f"TAXIMETER_TOKEN_KEYS: {path} holds no public key to check signatures with.")
            return FixedKeys(keys)
    except (OSError, ValueError, FetchError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(
            f"TAXIMETER_TOKEN_KEYS: {path} cannot be read as a JWKS: {type(error).__name__}."
        ) from error
    for kind in (RSAKey, ECKey, OKPKey):
        try:
            return FixedKeys([kind.import_key(text)])
        except (ValueError, TypeError, JoseError):
            continue
    raise ConfigurationError(f"TAXIMETER_TOKEN_KEYS: {path} is neither a JWKS nor a PEM key.")
