"""What every request needs: settings, database connections, keys, and the rule of who may see what."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from threading import Lock
from typing import Annotated, Any

import psycopg
from fastapi import Depends, Request
from psycopg import Connection
from psycopg_pool import ConnectionPool, PoolTimeout

from taximeter_dashboard.errors import Forbidden, NotFound, Problem, SignInNeeded, Unavailable
from taximeter_dashboard.oidc import Provider
from taximeter_dashboard.settings import Settings
from taximeter_dashboard.viewers import OPERATOR, OWNER, STAFF, Keys, Viewer
from taximeter_db.master_keys import MasterKeys
from taximeter_db.reading import UsageRow, access, payloads, scope, summary
from taximeter_db.reading.payloads import Payload

SESSION_COOKIE = "taximeter_session"
FLOW_COOKIE = "taximeter_sign_in"
CONNECTIONS_MAX = 8
CONNECTION_WAIT_SECONDS = 3.0
_WORKSPACE_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}", re.ASCII)

Explain = Callable[[Connection[Any], UsageRow], Mapping[str, Any] | None]
"""Makes the receipt of a usage: see docs/decisions/0071. Given by whoever has the price book, or by nobody."""


class House:
    """The parts that one dashboard has."""

    def __init__(self, settings: Settings, explain: Explain | None = None, masters: MasterKeys | None = None) -> None:
        self.settings = settings
        self.explain = explain
        self.masters = masters
        self.keys = Keys(settings)
        self.provider = Provider(settings) if settings.oidc_issuer else None
        self._lock = Lock()
        self._pool: ConnectionPool | None = None

    @contextlib.contextmanager
    def database(self, workspace_id: str | None = None) -> Iterator[Connection[Any]]:
        """A connection in a transaction, which sees no workspace's rows until `admit` lets somebody into one.

        Work that goes on after a request was admitted names its `workspace_id`. A Problem ends the transaction like a
        success: what was written before it (an operator's look, say) stays.

        Raises:
            Unavailable: There is no connection to be had, or it breaks.
        """
        problem: Problem | None = None
        try:
            with self._open().connection() as conn, conn.transaction():
                if workspace_id is not None:
                    scope.enter(conn, workspace_id)
                try:
                    yield conn
                except Problem as raised:
                    problem = raised
        except (PoolTimeout, psycopg.OperationalError) as error:
            raise Unavailable from error
        if problem is not None:
            raise problem

    def _open(self) -> ConnectionPool:
        """The pool, opened by the first request: a host that mounts us may run no start-up of ours, or several."""
        with self._lock:
            if self._pool is None:
                self._pool = ConnectionPool(
                    self.settings.database_url.replace("postgresql+psycopg://", "postgresql://", 1),
                    min_size=1,
                    max_size=CONNECTIONS_MAX,
                    timeout=CONNECTION_WAIT_SECONDS,
                    open=True,
                    check=ConnectionPool.check_connection,
                    kwargs={
                        "autocommit": True,
                        "prepare_threshold": None,  # PgBouncer before 1.21 loses prepared statements
                        "connect_timeout": 3,
                        "application_name": "taximeter dashboard",
                        "options": "-c statement_timeout=15s -c idle_in_transaction_session_timeout=60s -c timezone=UTC",
                    },
                )
            return self._pool

    def payloads(
        self, conn: Connection[Any], workspace_id: str, rows: list[UsageRow], bytes_max: int
    ) -> dict[int, Payload]:
        """The beginnings of what these usages' events said, by number."""
        return payloads.payloads(conn, workspace_id, rows, bytes_max, self.masters)

    def close(self) -> None:
        """Let go of the database; the next request would open it again."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def summary(self, conn: Connection[Any], workspace_id: str) -> summary.Summary:
        """The workspace's summary, with this installation's limits where it was never seen."""
        found = summary.read(conn, workspace_id)
        if found.known:
            return found
        minimum, low = self.settings.default_limits
        return summary.Summary(workspace_id, minimum=minimum, low=low)


def house_of(request: Request) -> House:
    """The house that serves a request."""
    house: House = request.app.state.house
    return house


def viewer_of(request: Request, conn: Connection[Any]) -> Viewer:
    """Who asks: by ``Authorization: Bearer``, else by the session, else by the host's own cookie. Raises SignInNeeded."""
    house = house_of(request)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if token and scheme.lower() == "bearer":
        return house.keys.read_host_token(token.strip())
    hosts = request.cookies.get(house.settings.token_cookie) if house.settings.token_cookie else None
    cookie = request.cookies.get(SESSION_COOKIE)
    if cookie:
        try:
            session = house.keys.read_session(cookie)
        except SignInNeeded:
            if not hosts:
                raise
        else:
            if not access.is_used(conn, session.number):
                return session.viewer
    if hosts:
        return house.keys.read_host_token(hosts)
    raise SignInNeeded("You are signed out." if cookie else "Sign in to see this.")


def admit(
    request: Request, conn: Connection[Any], workspace_id: str, *, write: bool = False, logged: bool = True
) -> Viewer:
    """Let a viewer into a workspace, or raise; from here on the transaction sees this workspace's rows.

    An operator's look is logged, unless it is one of many that belong to a look that was.

    Raises:
        SignInNeeded: Nobody is signed in.
        NotFound: The workspace is not theirs, or its id is none.
        Forbidden: It is, and they still may not: staff without the right to look, or anyone but the owner who writes.
    """
    viewer = viewer_of(request, conn)
    role = viewer.role(workspace_id)
    if role is None or not _WORKSPACE_ID.fullmatch(workspace_id):
        raise NotFound
    scope.enter(conn, workspace_id)
    if viewer.workspace_ids is None and not summary.read(conn, workspace_id).known:
        raise NotFound
    if write and role != OWNER:
        raise Forbidden("Only the owner can change this.")
    if role == STAFF and not access.may_read(conn, workspace_id, viewer.subject):
        raise Forbidden
    if role == OPERATOR and logged:
        access.log_look(conn, workspace_id, viewer.subject, request.url.path[:1000])
    return viewer


CurrentHouse = Annotated[House, Depends(house_of)]
