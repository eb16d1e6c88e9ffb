"""Starts the parts in order, starts them again when they die, and stops them in the opposite order."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Protocol

from taximeter_cli.embedded import state as states
from taximeter_cli.embedded.parts import Part
from taximeter_cli.embedded.process import start_token, stop_stranger
from taximeter_cli.errors import EmbeddedError

BACKOFF_SECONDS_FIRST = 1.0
BACKOFF_SECONDS_MAX = 30.0
STEADY_SECONDS = 60.0
"""The back-off of a part that ran this long starts over."""
_LOOK_SECONDS = 0.1
_ORPHAN_SECONDS_MAX = 15.0


class StopRequestedError(Exception):
    """Somebody asked us to stop while something was starting."""


class Reporter(Protocol):
    """How the supervisor tells a person what it does."""

    def starting(self, name: str) -> contextlib.AbstractContextManager[None]:
        """A part starts; the block ends when it is ready."""

    def say(self, sentence: str) -> None:
        """Something happened."""


class Supervisor:
    """Looks after the parts of one data directory; its lock must be held.

    Args:
        folder: The data directory.
        parts: In the order of their start.
        report: Where to tell what happens.
        addresses: Called when all parts are ready; written to the state file.
    """

    def __init__(
        self, folder: Path, parts: Sequence[Part], report: Reporter, addresses: Callable[[], dict[str, str]]
    ) -> None:
        self._folder = folder
        self._parts = list(parts)
        self._report = report
        self._addresses = addresses
        self._stop_wanted = 0
        self._starting = False
        self._state = states.read(folder)

    def run(self, when_ready: Callable[[dict[str, str]], None]) -> None:
        """Start everything, call ``when_ready`` with the addresses, watch until a signal, stop everything."""
        with self._signals():
            try:
                self._stop_orphans()
                with self._interruptible():
                    self._start_all()
                when_ready(self._state.addresses)
                self._watch()
            except StopRequestedError:
                self._report.say("Stopping before everything was up.")
            finally:
                self._stop_all()

    def _start_all(self) -> None:
        pid = os.getpid()
        self._state.supervisor = states.Child(pid, start_token(pid) or "")
        self._state.ready = False
        for part in self._parts:
            with self._report.starting(part.name):
                part.server.start()
                self._remember(part)
                part.once_ready()
        self._state.addresses = self._addresses()
        self._state.ready = True
        states.write(self._folder, self._state)

    def _watch(self) -> None:
        backoff: dict[str, float] = {}
        due: dict[str, float] = {}
        since = {part.name: time.monotonic() for part in self._parts}
        while not self._stop_wanted:
            for part in self._parts:
                now = time.monotonic()
                if part.server.running:
                    if now - since[part.name] > STEADY_SECONDS:
                        backoff.pop(part.name, None)
                elif part.name not in due:
                    wait = backoff.get(part.name, BACKOFF_SECONDS_FIRST)
                    backoff[part.name] = min(wait * 2, BACKOFF_SECONDS_MAX)
                    due[part.name] = now + wait
                    self._report.say(
                        f"{part.name} has ended by itself (log: {part.server.log}); starting it again in {wait:g} s."
                    )
                elif now >= due[part.name]:
                    del due[part.name]
                    self._restart(part)
                    since[part.name] = time.monotonic()
            time.sleep(_LOOK_SECONDS)

    def _restart(self, part: Part) -> None:
        try:
            with self._interruptible(), self._report.starting(part.name):
                part.server.start()
            self._remember(part)
            # a part that could not have its old port has another one now
            self._state.addresses = self._addresses()
            states.write(self._folder, self._state)
        except EmbeddedError as error:
            self._report.say(str(error))
        except StopRequestedError:
            return  # the loop sees it

    def _stop_all(self) -> None:
        started = [part for part in reversed(self._parts) if part.server.running]
        if started:
            self._report.say("Stopping: " + ", ".join(part.name for part in started) + ".")
        for part in reversed(self._parts):
            try:
                part.server.stop()
            except Exception as error:  # noqa: BLE001 - the others must still be stopped
                self._report.say(f"{part.name} did not stop in order: {error}")
            self._state.children.pop(part.name, None)
        self._state.supervisor = None
        self._state.ready = False
        states.write(self._folder, self._state)

    def _remember(self, part: Part) -> None:
        pid = part.server.pid
        self._state.children[part.name] = states.Child(pid, start_token(pid) or "")
        states.write(self._folder, self._state)

    def _stop_orphans(self) -> None:
        """Stop what a supervisor that was killed left running, the last part first."""
        signals = {part.name: part.orphan_signal for part in self._parts}
        for name, child in reversed(list(self._state.children.items())):
            first = signals.get(name, signal.SIGTERM)
            if stop_stranger(child.pid, child.token, first, timeout_seconds=_ORPHAN_SECONDS_MAX):
                self._report.say(f"Stopped the {name} that a killed supervisor had left behind.")
        self._state.children.clear()

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """While something starts, a signal raises; while parts run or stop, it is only noted."""
        self._starting = True
        try:
            yield
        finally:
            self._starting = False

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def noted(_number: int, _frame: FrameType | None) -> None:
            self._stop_wanted += 1
            if self._starting:
                self._starting = False
                raise StopRequestedError

        wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, noted) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
