"""From the claims of a token to who is looking: which claims hold what is the host's to say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from taximeter_dashboard.errors import ClaimError
from taximeter_dashboard.settings import Settings

OWNER: Final = "owner"
READER: Final = "reader"
"""A member whom the platform itself allows to read, in the token."""
STAFF: Final = "staff"
OPERATOR: Final = "operator"
ROLES: Final = (OWNER, READER, STAFF, OPERATOR)
EVERY_WORKSPACE: Final = "*"
WORKSPACES_MAX: Final = 2_000
_NAME_CHARACTERS_MAX: Final = 255
_UNSHOWN: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters and half surrogate pairs. Joiners and the like are parts of names."""


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


def named(viewer: Viewer) -> str:
    """Who changed it, as the log says."""
    return viewer.subject if viewer.name == viewer.subject else f"{viewer.name} ({viewer.subject})"


def claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name, or by a path with dots (``realm_access.roles``); None where there is none."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def viewer(settings: Settings, claims: Mapping[str, Any]) -> Viewer:
    """The viewer that verified claims name.

    Raises:
        ClaimError: They name nobody, or no role that is known here.
    """
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject or len(subject) > _NAME_CHARACTERS_MAX or not subject.isprintable():
        raise ClaimError("sub", "is missing, or not a printable text of 1 to 255 characters")
    role = _role(settings, claim(claims, settings.token_role_claim))
    workspaces = claim(claims, settings.token_workspaces_claim)
    if role == OPERATOR:
        roles = {EVERY_WORKSPACE: OPERATOR}
    elif isinstance(workspaces, dict):
        given = {str(name): _role(settings, kind) for name, kind in workspaces.items()}
        roles = {name: kind for name, kind in given.items() if kind not in {None, OPERATOR}}
    elif isinstance(workspaces, list | str) and role is not None:
        roles = dict.fromkeys(map(str, workspaces if isinstance(workspaces, list) else [workspaces]), role)
    elif workspaces is None and role is not None:
        roles = {}
    elif role is None:
        raise ClaimError(settings.token_role_claim, "is missing, or none of the roles that the settings name")
    else:
        raise ClaimError(settings.token_workspaces_claim, "is neither a list of ids nor an object from id to role")
    # Every workspace at once is for operators, whose looks are logged; a host must name those of an owner.
    if role != OPERATOR:
        roles.pop(EVERY_WORKSPACE, None)
    # No workspace has such an id, and PostgreSQL has no such text.
    roles = {name: kind for name, kind in roles.items() if name.isascii() and name.isprintable()}
    if len(roles) > WORKSPACES_MAX:
        raise ClaimError(settings.token_workspaces_claim, f"names more than {WORKSPACES_MAX:,} workspaces")
    name = claim(claims, settings.token_name_claim)
    return Viewer(
        subject, _UNSHOWN.sub("\N{REPLACEMENT CHARACTER}", str(name or subject)[:_NAME_CHARACTERS_MAX]), roles
    )


def _role(settings: Settings, value: Any) -> str | None:
    """The role that a claim's value, or the strongest of several, stands for."""
    values = set(map(str, value)) if isinstance(value, list) else {str(value)}
    for role, names in (
        (OPERATOR, settings.token_operator_roles),
        (OWNER, settings.token_owner_roles),
        (READER, settings.token_reader_roles),
        (STAFF, settings.token_staff_roles),
    ):
        if values & set(names):
            return role
    return None
