"""What every request needs: settings, database connections, keys, and the rule of who may see what."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Request
from psycopg import Connection

from taximeter_dashboard.auth import services
from taximeter_dashboard.auth.oidc import Provider
from taximeter_dashboard.auth.viewers import OPERATOR, OWNER, STAFF, Keys, Viewer
from taximeter_dashboard.database import TRANSACTION_SECONDS, Database
from taximeter_dashboard.errors import ForbiddenError, NotFoundError, SignInNeededError
from taximeter_dashboard.settings import Settings
from taximeter_db import access
from taximeter_db.crypto.master_keys import MasterKeys
from taximeter_db.limits import is_workspace_id
from taximeter_db.queries import payloads, scope, summary
from taximeter_db.queries.payloads import Payload
from taximeter_db.queries.usages import UsageRow

SESSION_COOKIE = "taximeter_session"
FLOW_COOKIE = "taximeter_sign_in"

Explain = Callable[[Connection[Any], UsageRow], Mapping[str, Any] | None]
"""Makes the receipt of a usage: see docs/decisions/0071. Given by whoever has the price book, or by nobody."""

Held = Callable[[str], int | None]
"""What the open holds of a workspace hold, in picodollars; None where that is unknown. Given by whoever reaches the flag Redis."""


def _unknown(_workspace_id: str) -> int | None:
    return None


class AppContext:
    """The parts that one dashboard has."""

    def __init__(
        self,
        settings: Settings,
        explain: Explain | None = None,
        masters: MasterKeys | None = None,
        held: Held | None = None,
    ) -> None:
        self.settings = settings
        self.explain = explain
        self.masters = masters
        self.keys = Keys(settings)
        self.provider = Provider(settings) if settings.oidc_issuer else None
        self._database = Database(settings.database_url)
        self.held: Held = held or _unknown

    @contextlib.contextmanager
    def database(
        self, workspace_id: str | None = None, seconds: float = TRANSACTION_SECONDS
    ) -> Iterator[Connection[Any]]:
        """A connection in a transaction, which sees no workspace's rows until `authorize` lets somebody into one.

        Work that goes on after a request was authorized names its `workspace_id`. A ProblemError ends the transaction
        like a success: what was written before it (an operator's look, say) stays.

        Raises:
            UnavailableError: The database does not answer, or not within `seconds`.
        """
        with self._database.transaction(seconds) as conn:
            if workspace_id is not None:
                scope.enter(conn, workspace_id)
            yield conn

    def payloads(
        self, conn: Connection[Any], workspace_id: str, rows: list[UsageRow], bytes_max: int
    ) -> dict[int, Payload]:
        """The beginnings of what these usages' events said, by number."""
        return payloads.payloads(conn, workspace_id, rows, bytes_max, self.masters)

    def close(self) -> None:
        """Let go of the database; the next request would open it again."""
        self._database.close()

    def summary(self, conn: Connection[Any], workspace_id: str) -> summary.Summary:
        """The workspace's summary, with this installation's limits where it was never seen."""
        found = summary.read(conn, workspace_id)
        if found.known:
            return found
        minimum, low = self.settings.default_limits
        return summary.Summary(workspace_id, minimum=minimum, low=low)


class WorkspaceContext(NamedTuple):
    """A request that was authorized for a workspace, with the connection whose transaction sees its rows."""

    request: Request
    app_context: AppContext
    conn: Connection[Any]
    viewer: Viewer
    workspace_id: str

    def summary(self) -> summary.Summary:
        """The workspace's summary."""
        return self.app_context.summary(self.conn, self.workspace_id)


def context_of(request: Request) -> AppContext:
    """The app context that serves a request."""
    app_context: AppContext = request.app.state.app_context
    return app_context


def viewer_of(request: Request, conn: Connection[Any]) -> Viewer:
    """Who asks: by ``Authorization: Bearer``, else by the session, else by the host's own cookie. Raises SignInNeededError.

    A program's token opens the JSON API and no page.
    """
    app_context = context_of(request)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if token and scheme.lower() == "bearer":
        if services.is_one(token.strip()):
            return services.viewer(conn, token.strip(), _path(request))
        return app_context.keys.read_host_token(token.strip())
    hosts = request.cookies.get(app_context.settings.token_cookie) if app_context.settings.token_cookie else None
    cookie = request.cookies.get(SESSION_COOKIE)
    if cookie:
        try:
            session = app_context.keys.read_session(cookie)
        except SignInNeededError:
            if not hosts:
                raise
        else:
            if not access.is_used(conn, session.number):
                return session.viewer
    if hosts:
        return app_context.keys.read_host_token(hosts)
    raise SignInNeededError("You are signed out." if cookie else "Sign in to see this.")


def _path(request: Request) -> str:
    """The path without the prefix under which a host mounted us."""
    return request.url.path.removeprefix(str(request.scope.get("root_path", "")).rstrip("/"))


def authorize(
    request: Request,
    conn: Connection[Any],
    workspace_id: str,
    *,
    write: bool = False,
    logged: bool = True,
    unseen: bool = False,
) -> Viewer:
    """Let a viewer into a workspace, or raise; from here on the transaction sees this workspace's rows.

    An operator's look is logged, unless it is a poll, or one of many that belong to a look that was. A workspace that was
    never seen is not there for whoever may see every one, unless `unseen` says that it may be.

    Raises:
        SignInNeededError: Nobody is signed in.
        NotFoundError: The workspace is not theirs, or its id is malformed.
        ForbiddenError: It is, and they still may not: staff without the right to look, or anyone but the owner who writes.
    """
    viewer = viewer_of(request, conn)
    role = viewer.role(workspace_id)
    if role is None or not is_workspace_id(workspace_id):
        raise NotFoundError
    scope.enter(conn, workspace_id)
    if not unseen and viewer.workspace_ids is None and not summary.read(conn, workspace_id).known:
        raise NotFoundError
    if write and role != OWNER:
        raise ForbiddenError("Only the owner can change this.")
    if role == STAFF and not access.may_read(conn, workspace_id, viewer.subject):
        raise ForbiddenError
    if role == OPERATOR and logged:
        access.log_look(conn, workspace_id, viewer.subject, request.url.path[:1000])
    return viewer


CurrentContext = Annotated[AppContext, Depends(context_of)]
