"""Signed places in a list, so that a client can only go on from where we left it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from taximeter_dashboard.errors import ProblemError

_SIGNATURE_BYTES = 12


def write(secret: str, scope: str, place: int) -> str:
    """A cursor at `place` that is valid in `scope` (which list, of which workspace, in which order) alone."""
    body = str(place).encode()
    return base64.urlsafe_b64encode(_sign(secret, scope, body) + body).decode().rstrip("=")


def read(secret: str, scope: str, cursor: str) -> int:
    """The place of a cursor.

    Raises:
        ProblemError: 400, the cursor is not one of ours, or of another list.
    """
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        data = b""
    signature, body = data[:_SIGNATURE_BYTES], data[_SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _sign(secret, scope, body)):
        raise ProblemError("This cursor does not belong to this list. Begin again without it.", title="Bad cursor")
    return int(body)


def _sign(secret: str, scope: str, body: bytes) -> bytes:
    message = scope.encode() + b"\0" + body
    return hmac.digest(b"cursor:" + secret.encode(), message, hashlib.sha256)[:_SIGNATURE_BYTES]
