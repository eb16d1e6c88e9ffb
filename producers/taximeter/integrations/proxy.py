"""A stand-in for a client: what is metered is followed, what is free passes, and everything else is refused.

It passes for what it stands for (``isinstance``, context managers, attributes, errors), whose own objects stay untouched.
"""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from taximeter.errors import NotMeteredError
from taximeter.integrations.following import Followed, Metering, Method


@dataclass(frozen=True, slots=True)
class Surface:
    """What a library's clients offer."""

    methods: Mapping[str, Method]
    """The metered methods by their path from the client."""
    is_free: Callable[[str], bool]
    """Whether a path consumes nothing."""
    is_branch: Callable[[object], bool]
    """Whether an object holds further methods."""
    follow: Callable[[Followed, Any, str | None], Any]
    """Reads the answer of a call, or lets it be read as it is consumed; returns what the caller is given."""
    follow_async: Callable[[Followed, Any, str | None], Any]
    """The same as a coroutine function."""
    enter: Callable[[Followed, Any, str | None], None] | None = None
    """What a context manager gave when it was entered, in `Method.is_deferred` and in deferred views."""
    enter_async: Callable[[Followed, Any, str | None], Any] | None = None
    views: Mapping[str, str] = field(default_factory=dict)
    """Attributes that offer the same methods with other answers, by the name of the view."""
    deferred_views: frozenset[str] = frozenset()
    """Views whose methods return a context manager that makes the call."""
    clones: frozenset[str] = frozenset()
    """Methods of the client that return another client."""
    advice: Mapping[str, str] = field(default_factory=dict)
    """What to do instead of a path that is refused."""


@dataclass(slots=True, eq=False)
class _Node:
    target: Any
    surface: Surface
    metering: Metering
    is_async: bool
    path: str = ""
    view: str | None = None
    known: dict[str, Any] = field(default_factory=dict)
    """What was handed out and stays the same."""

    def child(self, target: Any, path: str, view: str | None) -> Proxy:
        return Proxy(_Node(target, self.surface, self.metering, self.is_async, path, view))

    def hand_out(self, name: str) -> Any:
        value = getattr(self.target, name)
        surface = self.surface
        if name.startswith("_"):
            return value
        if name in surface.views:
            return self._keep(name, self.child(value, self.path, surface.views[name]))
        path = f"{self.path}.{name}" if self.path else name
        if surface.is_branch(value):
            return self._keep(name, self.child(value, path, self.view))
        if not callable(value) or isinstance(value, type):
            return value
        if path in surface.clones:
            return lambda *args, **kwargs: Proxy(_Node(value(*args, **kwargs), surface, self.metering, self.is_async))
        method = surface.methods.get(path)
        if method is not None:
            return self._keep(name, _metered(self, path, method, value))
        if surface.is_free(path):
            return value
        return _refusal(path, surface.advice.get(path))

    def _keep(self, name: str, value: Any) -> Any:
        self.known[name] = value
        return value


class Proxy:
    """Stands for a client or a part of it."""

    __slots__ = ("_taximeter_node",)

    def __init__(self, node: _Node) -> None:
        object.__setattr__(self, "_taximeter_node", node)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(_node(self).target)

    def __getattr__(self, name: str) -> Any:
        node = _node(self)
        try:
            return node.known[name]
        except KeyError:
            return node.hand_out(name)

    def __setattr__(self, name: str, value: object) -> None:
        node = _node(self)
        node.known.clear()
        setattr(node.target, name, value)

    def __delattr__(self, name: str) -> None:
        node = _node(self)
        node.known.clear()
        delattr(node.target, name)

    def __dir__(self) -> list[str]:
        return dir(_node(self).target)

    def __repr__(self) -> str:
        return f"<metered {_node(self).target!r}>"

    def __enter__(self) -> Self:
        _node(self).target.__enter__()
        return self

    def __exit__(self, *error: object) -> Any:
        return _node(self).target.__exit__(*error)

    async def __aenter__(self) -> Self:
        await _node(self).target.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> Any:
        return await _node(self).target.__aexit__(*error)

    def __copy__(self) -> Proxy:
        node = _node(self)
        return node.child(copy.copy(node.target), node.path, node.view)

    def __deepcopy__(self, memo: dict[int, Any]) -> Proxy:
        node = _node(self)
        return node.child(copy.deepcopy(node.target, memo), node.path, node.view)

    def __reduce_ex__(self, protocol: Any) -> Any:
        pickle.dumps(_node(self).target, protocol)  # raises what the client raises; they hold locks and connections
        raise TypeError("a metered client cannot be pickled: wrap a client in the process that uses it")


_NODE: Final = Proxy._taximeter_node  # type: ignore[attr-defined]  # noqa: SLF001 - a slot, past __getattr__


def _node(proxy: Proxy) -> _Node:
    node: _Node = _NODE.__get__(proxy)
    return node


def target_of(proxy: Any) -> Any:
    """What a proxy stands for."""
    return _node(proxy).target


def proxy_of(client: object, surface: Surface, metering: Metering, *, is_async: bool) -> Any:
    """A stand-in for a client."""
    return Proxy(_Node(client, surface, metering, is_async))


def _refusal(path: str, advice: str | None) -> Callable[..., Any]:
    def refuse(*_args: Any, **_kwargs: Any) -> Any:
        raise NotMeteredError(
            f"{path} was not called: what it consumes cannot be followed; "
            + (advice or "call it on the client itself and meter it by meter.track or meter.record")
        )

    return refuse


def _metered(node: _Node, path: str, method: Method, target: Callable[..., Any]) -> Callable[..., Any]:
    """The method, followed."""
    surface, metering, view = node.surface, node.metering, node.view
    deferred = method.is_deferred or view in surface.deferred_views

    def call(*args: Any, **kwargs: Any) -> Any:
        followed = metering.begin(method, path, kwargs)
        if followed is None:
            return target(*args, **kwargs)
        if deferred:
            return Deferred(target(*args, **followed.arguments), followed, surface, view)
        with followed.seam():
            answer = target(*args, **followed.arguments)
        return surface.follow(followed, answer, view)

    async def call_async(*args: Any, **kwargs: Any) -> Any:
        followed = metering.begin(method, path, kwargs)
        if followed is None:
            return await target(*args, **kwargs)
        with followed.seam():
            answer = await target(*args, **followed.arguments)
        return await surface.follow_async(followed, answer, view)

    is_async = node.is_async or inspect.iscoroutinefunction(target)
    wrapper: Callable[..., Any] = call_async if is_async and not deferred else call
    for attribute in ("__name__", "__qualname__", "__doc__", "__module__"):
        setattr(wrapper, attribute, getattr(target, attribute, getattr(wrapper, attribute)))
    wrapper.__wrapped__ = target  # type: ignore[attr-defined]
    return wrapper


class Deferred:
    """A context manager that makes its call when it is entered."""

    def __init__(self, manager: Any, followed: Followed, surface: Surface, view: str | None) -> None:
        self._taximeter_parts = (manager, followed, surface, view)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._taximeter_parts[0])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._taximeter_parts[0], name)

    def __enter__(self) -> Any:
        manager, followed, surface, view = self._taximeter_parts
        with followed.seam():
            answer = manager.__enter__()
        if surface.enter is not None:
            surface.enter(followed, answer, view)
        return answer

    def __exit__(self, *error: object) -> Any:
        manager, followed, _, _ = self._taximeter_parts
        try:
            return manager.__exit__(*error)
        finally:
            followed.end()

    async def __aenter__(self) -> Any:
        manager, followed, surface, view = self._taximeter_parts
        with followed.seam():
            answer = await manager.__aenter__()
        if surface.enter_async is not None:
            await surface.enter_async(followed, answer, view)
        return answer

    async def __aexit__(self, *error: object) -> Any:
        manager, followed, _, _ = self._taximeter_parts
        try:
            return await manager.__aexit__(*error)
        finally:
            followed.end()
