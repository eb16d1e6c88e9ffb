"""Programs: who they are by a service token, and where it lets them in."""

from __future__ import annotations

from typing import Any, Final

from psycopg import Connection

from taximeter_dashboard.auth.claims import EVERY_WORKSPACE, OWNER, READER, Viewer
from taximeter_dashboard.errors import SignInNeededError
from taximeter_db import service_tokens

API: Final = "/api/"


def is_one(token: str) -> bool:
    """Whether a bearer token is a service token, by the way it looks."""
    return token.startswith(service_tokens.PREFIX)


def viewer(conn: Connection[Any], token: str, path: str) -> Viewer:
    """The program that a service token names, for a request to this path.

    Raises:
        SignInNeededError: It does not exist, was revoked, or asks for a page instead of the API.
    """
    known = service_tokens.find(conn, token)
    if known is None or not path.startswith(API):
        raise SignInNeededError("This token does not hold: it may have been revoked. It opens the JSON API alone.")
    role = READER if known.read_only else OWNER
    workspaces = (EVERY_WORKSPACE,) if known.workspaces is None else known.workspaces
    return Viewer(f"token:{known.name}", f"{known.name} (service token)", dict.fromkeys(workspaces, role))
