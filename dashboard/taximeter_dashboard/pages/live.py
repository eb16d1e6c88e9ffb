"""Changes as they are booked, to every page that is open: server-sent events.

One look at the database per half second and process, for all that watch; each stream then sends its workspace's state in
full. Every few seconds all of them are asked again who they are, in one transaction: whoever signed out, or lost the right to
look, is told so, and the stream ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from taximeter_dashboard.auth.viewers import Viewer
from taximeter_dashboard.context import AppContext, CurrentContext, WorkspaceContext, authorize
from taximeter_dashboard.errors import ForbiddenError, NotFoundError, ProblemError, SignInNeededError
from taximeter_dashboard.pages import tracking
from taximeter_db.queries import summary

LOOK_SECONDS: Final = 0.5
SEND_SECONDS: Final = 1.0
BEAT_SECONDS: Final = 15.0
AUTHORIZE_SECONDS: Final = 3.0
STREAM_SECONDS: Final = 600.0

router = APIRouter(include_in_schema=False)

Version = tuple[int, int, int]


class Stream:
    """One page that is open: who asked for which workspace. `woken` when there is news, or when it is over."""

    def __init__(self, request: Request, workspace_id: str) -> None:
        self.request = request
        self.workspace_id = workspace_id
        self.woken = asyncio.Event()
        self.over = False


class Watch:
    """Looks at the workspaces that somebody watches, and wakes their streams. Belongs to one event loop."""

    def __init__(self, app_context: AppContext) -> None:
        self._app_context = app_context
        self._streams: dict[str, set[Stream]] = {}
        self._seen: dict[str, Version] = {}
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def on(self, request: Request, workspace_id: str) -> Iterator[Stream]:
        """A stream that is woken whenever the workspace changed."""
        stream = Stream(request, workspace_id)
        self._streams.setdefault(workspace_id, set()).add(stream)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        try:
            yield stream
        finally:
            streams = self._streams[workspace_id]
            streams.discard(stream)
            if not streams:
                del self._streams[workspace_id]
                self._seen.pop(workspace_id, None)

    async def begin(self, workspace_id: str) -> None:
        """Note what a new stream starts from, before it reads its first state: whatever changes after that wakes it."""
        if workspace_id not in self._seen:
            with contextlib.suppress(ProblemError):  # as below
                for name, version in (await run_in_threadpool(self._read, [workspace_id])).items():
                    self._seen.setdefault(name, version)

    async def _look(self) -> None:
        asked_at = time.monotonic()
        while self._streams:
            with contextlib.suppress(ProblemError):  # no database: the streams find out themselves when they next read
                now = await run_in_threadpool(self._read, list(self._streams))
                for workspace_id, version in now.items():
                    if self._seen.get(workspace_id) not in {None, version}:
                        for stream in self._streams.get(workspace_id, ()):
                            stream.woken.set()
                    self._seen[workspace_id] = version
                if time.monotonic() - asked_at >= AUTHORIZE_SECONDS:
                    every = [stream for streams in self._streams.values() for stream in streams]
                    for stream in await run_in_threadpool(self._refused, every):
                        stream.over = True
                        stream.woken.set()
                    asked_at = time.monotonic()
            await asyncio.sleep(LOOK_SECONDS)

    def _refused(self, streams: list[Stream]) -> list[Stream]:
        """Those whose viewers would not be let in any more."""
        refused = []
        with self._app_context.database() as conn:
            for stream in streams:
                try:
                    authorize(stream.request, conn, stream.workspace_id, logged=False)
                except (SignInNeededError, NotFoundError, ForbiddenError):
                    refused.append(stream)
                except ProblemError:
                    continue  # nobody can tell at the moment
        return refused

    def _read(self, workspace_ids: list[str]) -> dict[str, Version]:
        with self._app_context.database() as conn:
            found = summary.versions(conn, workspace_ids)
        return {name: found.get(name, (0, 0, 0)) for name in workspace_ids}


@router.get("/workspaces/{workspace_id}/events")
async def stream(request: Request, app_context: CurrentContext, workspace_id: str) -> Response:
    """The workspace's state now, and again whenever it changes."""
    viewer = await run_in_threadpool(_authorize, request, app_context, workspace_id)
    watch: Watch = request.app.state.watch
    headers = {"x-accel-buffering": "no"}
    events = _events(request, app_context, viewer, workspace_id, watch)
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


def _authorize(request: Request, app_context: AppContext, workspace_id: str) -> Viewer:
    with app_context.database() as conn:
        return authorize(request, conn, workspace_id)


async def _events(
    request: Request, app_context: AppContext, viewer: Viewer, workspace_id: str, watch: Watch
) -> AsyncIterator[bytes]:
    ends = time.monotonic() + STREAM_SECONDS
    with watch.on(request, workspace_id) as stream:
        yield b"retry: 2000\n\n"
        await watch.begin(workspace_id)
        while time.monotonic() < ends and not await request.is_disconnected():
            stream.woken.clear()
            if stream.over:
                yield b"event: over\ndata:\n\n"
                return
            try:
                state = await run_in_threadpool(_state, request, app_context, viewer, workspace_id)
            except ProblemError:
                return  # the page says that updates are interrupted, and asks again
            yield b"event: state\ndata: " + msgspec.json.encode(state) + b"\n\n"
            await asyncio.sleep(SEND_SECONDS)
            while not stream.woken.is_set() and time.monotonic() < ends:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stream.woken.wait(), BEAT_SECONDS)
                if not stream.woken.is_set():
                    yield b": beat\n\n"


def _state(request: Request, app_context: AppContext, viewer: Viewer, workspace_id: str) -> dict[str, Any]:
    with app_context.database(workspace_id) as conn:
        found = app_context.summary(conn, workspace_id)
        workspace = WorkspaceContext(request, app_context, conn, viewer, workspace_id)
        card = tracking.show(workspace, "usages", template="_summary.html", found=found)
        title = tracking.show(workspace, "usages", template="_title.html", found=found)
    return {
        "status": found.status,
        "version": found.version,
        "usages": found.usage_count,
        "payments": found.payment_count,
        "title": bytes(title.body).decode().strip(),
        "card": bytes(card.body).decode(),
    }
