"""Who pays for the calls that are made now: a workspace and a tool, and who within the workspace.

It is kept in a context variable, so it holds for the code inside of its ``with`` block, for the coroutines that it awaits
and the tasks that it starts, and for nobody else. A new thread begins without one, as does the thread of an executor;
``asyncio.to_thread`` takes it along. To carry it there: ``executor.submit(meter.attribution("acme", tool="chat")(work))``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar

from taximeter.errors import NoAttributionError
from taximeter.events import check_names
from taximeter.labels import labels

P = ParamSpec("P")
R = TypeVar("R")


class _Frame(NamedTuple):
    attribution: Attribution
    outer: _Frame | None


_frame: ContextVar[_Frame | None] = ContextVar("taximeter_attribution", default=None)


class Attribution:
    """Who pays; a context manager and a decorator, both as often as you like, in any thread.

    Made by ``Meter.attribution``.
    """

    __slots__ = ("tags", "tool", "user", "workspace_id")

    def __init__(
        self, workspace_id: str, tool: str, user: str | None = None, tags: Mapping[str, str] | None = None
    ) -> None:
        check_names(workspace_id, tool, None, None)
        self.workspace_id = workspace_id
        self.tool = tool
        checked = labels(user=user, tags=tags)
        self.user = checked.user
        self.tags = checked.tags

    def __enter__(self) -> Self:
        _frame.set(_Frame(self, _frame.get()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A generator may be closed in another context than the one in which it was started: there is nothing to undo.
        frame = _frame.get()
        if frame is not None and frame.attribution is self:
            _frame.set(frame.outer)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function or a coroutine function: its calls are attributed."""
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def attributed_coroutine(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await function(*args, **kwargs)

            return attributed_coroutine  # type: ignore[return-value]

        @functools.wraps(function)
        def attributed(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return function(*args, **kwargs)

        return attributed

    def __repr__(self) -> str:
        return f"<attribution of {self.workspace_id!r}, tool {self.tool!r}>"


def current() -> Attribution | None:
    """The attribution that holds now, if any."""
    frame = _frame.get()
    return frame.attribution if frame is not None else None


def required(attribution: Attribution | None = None) -> Attribution:
    """The attribution that holds now, or the given one where none does.

    Raises:
        NoAttributionError: There is neither.
    """
    held = current() or attribution
    if held is None:
        raise NoAttributionError(
            "nobody says which workspace pays for this call, so it was not made: call it inside of"
            ' `with meter.attribution("workspace", tool="chat"):`. A new thread begins without an attribution'
        )
    return held
