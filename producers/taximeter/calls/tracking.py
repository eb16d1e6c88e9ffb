"""`Meter.track`: any call as a ``with`` block or a decorated function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from decimal import Decimal
from types import TracebackType
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

from taximeter.calls.attribution import Attribution, required
from taximeter.calls.call import Amounts, Call, Recorder
from taximeter.calls.holding import hold_for
from taximeter.errors import ConfigurationError

P = ParamSpec("P")
R = TypeVar("R")

CALL_PARAMETER: Final = "call"
"""A decorated function with a parameter of this name is given its call."""
BROKEN_OFF: Final = ("call_incomplete", "output_lower_bound")
"""The flags of a call that ended with an error: what was added until then is the least that was consumed."""


class _Running(NamedTuple):
    track: Track | None
    call: Call
    outer: _Running | None


_running: ContextVar[_Running | None] = ContextVar("taximeter_call", default=None)


def current_call() -> Call:
    """The innermost tracked call that runs now.

    Raises:
        ConfigurationError: None does.
    """
    running = _running.get()
    if running is None:
        raise ConfigurationError("no call is tracked here; use `with meter.track(...) as call:` or its decorator")
    return running.call


class Track:
    """A call of anything; a context manager, sync and async, and a decorator. Made by ``Meter.track``.

    Checked when it begins. At its end, what was added is recorded; a call to which nothing was added was one request.
    When it ends with an error, what was added until then is recorded as a lower bound, and nothing if that is nothing.
    """

    def __init__(
        self,
        meter: Recorder,
        attribution: Attribution | None,
        *,
        provider: str | None = None,
        model: str | None = None,
        quantities: Amounts | None = None,
        hold: Decimal | str | int | Amounts | None = None,
    ) -> None:
        self._meter = meter
        self._hold = hold
        self._attribution = attribution
        self._provider = provider
        self._model = model
        self._quantities = quantities
        self._begun: Call | None = None

    def begin(self) -> Call:
        """Check, and begin a call that whoever asks for it must end."""
        payer = self._attribution or required()
        self._meter.check_call(payer, self._model)
        call = Call(self._meter, payer, provider=self._provider, model=self._model)
        if self._quantities:
            call.add(self._quantities)
        if self._hold is not None:
            hold_for(call, self._hold)
        return call

    def __enter__(self) -> Call:
        call = self._begun = self.begin()
        call.attribution.__enter__()
        _running.set(_Running(self, call, _running.get()))
        return call

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        running = _running.get()
        if running is not None and running.track is self:
            _running.set(running.outer)
            running.call.attribution.__exit__(kind, error, traceback)
            finish(running.call, error)
        elif self._begun is not None:  # a generator that is closed in another context than that of its start
            finish(self._begun, error)

    async def __aenter__(self) -> Call:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function, a coroutine function or a generator function of either kind: each call is tracked."""
        given = CALL_PARAMETER in inspect.signature(function).parameters
        wrapper: Any
        if inspect.isasyncgenfunction(function):
            wrapper = _async_generator(self, function, given)
        elif inspect.isgeneratorfunction(function):
            wrapper = _generator(self, function, given)
        elif inspect.iscoroutinefunction(function):

            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                with self as call:
                    return await function(*args, **_with_call(given, call, kwargs))
        else:

            def wrapper(*args: Any, **kwargs: Any) -> Any:
                with self as call:
                    return function(*args, **_with_call(given, call, kwargs))

        tracked: Callable[P, R] = functools.wraps(function)(wrapper)
        return tracked


def finish(call: Call, error: BaseException | None) -> None:
    """Record a call that has ended, with or without an error."""
    if error is None:
        call.end()
    elif isinstance(error, GeneratorExit) or call.quantities:
        call.end(flags=BROKEN_OFF)
    else:
        call.abandon()


@contextmanager
def _step(call: Call) -> Iterator[None]:
    """One step of a generator: between its steps, its caller's own calls are not attributed to it."""
    outer = _running.get()
    _running.set(_Running(None, call, outer))
    try:
        with call.attribution:
            yield
    finally:
        _running.set(outer)


def _generator(track: Track, function: Callable[..., Any], given: bool) -> Callable[..., Iterator[Any]]:
    def wrapper(*args: Any, **kwargs: Any) -> Iterator[Any]:
        call = track.begin()
        error: BaseException | None = None
        generator = function(*args, **_with_call(given, call, kwargs))
        try:
            while True:
                with _step(call):
                    item = next(generator, _END)
                if item is _END:
                    return
                yield item
        except BaseException as raised:
            error = raised
            raise
        finally:
            with _step(call):
                generator.close()
            finish(call, error)

    return wrapper


def _async_generator(track: Track, function: Callable[..., Any], given: bool) -> Callable[..., AsyncIterator[Any]]:
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        call = track.begin()
        error: BaseException | None = None
        generator = function(*args, **_with_call(given, call, kwargs))
        try:
            while True:
                with _step(call):
                    item = await anext(generator, _END)
                if item is _END:
                    return
                yield item
        except BaseException as raised:
            error = raised
            raise
        finally:
            try:
                with _step(call):
                    await generator.aclose()
            finally:
                finish(call, error)

    return wrapper


_END: Final = object()


def _with_call(given: bool, call: Call, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {CALL_PARAMETER: call, **kwargs} if given else kwargs
