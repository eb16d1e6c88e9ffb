"""Slices: a process holds a larger amount in Redis once, and serves many calls from it in its memory.

What a call takes from a slice is held by the slice until the call is recorded; then Redis moves it, in one step, to a hold of
the call's own, which the booking settles.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Self

from taximeter.errors import ClosedError
from taximeter.holds.amounts import to_microdollars, to_usd
from taximeter.holds.hold import OPEN, RELEASED, Hold
from taximeter.ids import new_event_id

if TYPE_CHECKING:
    from taximeter.holds.hold import Short
    from taximeter.holds.keeper import Keeper
    from taximeter.holds.server import Answer

UNHELD_SECONDS = 1.0
"""How long Redis is not asked again after it could not be asked; calls go on without a hold meanwhile."""
IDLE_PART = 0.5
"""A slice from which nothing was taken for this part of its time to live goes back."""


class Slice(Hold):
    """A hold that calls take parts of. It is renewed while a part is out, or was taken a moment ago."""

    def __init__(
        self, keeper: Keeper, workspace_id: str, hold_id: str | None, short: Short | None, *, ttl_seconds: float
    ) -> None:
        super().__init__(keeper, workspace_id, hold_id, short, ttl_seconds=ttl_seconds)
        self.free = 0
        self.parts_out = 0
        self.idle_seconds = ttl_seconds * IDLE_PART
        self.good_until = 0.0
        """Until when Redis holds it in any case."""
        self._asked_at = time.monotonic()
        self.parts_lock = threading.Lock()

    def accept(self, answer: Answer) -> Self:
        """Take over what Redis says; beside `Hold.accept`, until when it holds."""
        super().accept(answer)
        if self.live_seconds:
            self.good_until = self._asked_at + self.live_seconds
        return self

    def renewed(self, asked_at: float, live_seconds: float) -> None:
        """How long Redis holds it, from when it was asked."""
        self.good_until = asked_at + live_seconds

    def take(self, microdollars: int) -> bool:
        """Take a part; False: there is not so much left, or Redis may not hold it any more."""
        now = time.monotonic()
        with self.parts_lock:
            if self.state != OPEN or self.free < microdollars or now >= self.good_until:
                return False
            self.free -= microdollars
            self.parts_out += 1
            self.ends_at = now + self.idle_seconds
            return True

    def give_back(self, microdollars: int) -> None:
        """A part whose call was not recorded."""
        with self.parts_lock:
            self.free += microdollars
            self.parts_out -= 1

    def moved(self, microdollars: int) -> None:
        """A part is a hold of its own now."""
        with self.parts_lock:
            self.microdollars -= microdollars
            self.parts_out -= 1

    def shortage(self) -> Exception:
        """The error for a call that what there is does not pay for."""
        if self._short is None:
            return ClosedError("the slice does not pay for one call")
        return self._short(self.workspace_id, self.held + (self.available or Decimal(0)))

    def retire(self) -> None:
        """Give nothing more; what is left goes back once no part is out."""
        with self.parts_lock:
            self.ends_at = 0.0

    def is_over(self) -> bool:
        """Whether it is to be released; from then on nothing can be taken."""
        with self.parts_lock:
            if self.parts_out == 0 and time.monotonic() >= self.ends_at:
                self.state = RELEASED
            return self.state != OPEN


class PartOfSlice(Hold):
    """What `Slices.hold` returns: a hold whose amount is a part of a slice until it is recorded."""

    granted = True
    available = None
    output_tokens = None
    within_context = False
    outlives = False
    state = OPEN
    _id: str | None = None

    def __init__(self, keeper: Keeper, taken_from: Slice, microdollars: int) -> None:
        self.workspace_id = taken_from.workspace_id
        self.microdollars = microdollars
        self.taken_from: Slice | None = taken_from
        self._is_held = taken_from.id is not None
        self.ttl_seconds = self.live_seconds = taken_from.ttl_seconds
        self._keeper = keeper
        self._short = taken_from._short  # noqa: SLF001 - of the same kind
        self._pid = os.getpid()

    @property
    def id(self) -> str | None:  # type: ignore[override]  # made when it is first asked for
        """What usage events name; None if nothing is held."""
        if self._id is None and self._is_held:
            self._id = new_event_id()
        return self._id

    @property
    def held(self) -> Decimal:
        """USD that are held."""
        return to_usd(self.microdollars)

    @held.setter
    def held(self, _usd: Decimal) -> None:
        """As `microdollars` says."""

    @property
    def record_option(self) -> bytes:
        """The slice that the amount is moved from. None of the parent's in a forked child: its copy would not know."""
        taken_from = self.taken_from
        return b"" if taken_from is None or not self.is_mine else (taken_from.id or "").encode()

    def noted(self) -> None:
        """Redis has moved it."""
        taken_from, self.taken_from = self.taken_from, None
        if taken_from is not None and self.is_mine:
            taken_from.moved(self.microdollars)

    def extend(self, max_cost: Decimal | str | int) -> None:
        """Hold ``max_cost`` USD in all, from what is left of the slice.

        Raises:
            InsufficientCredit: There is not so much left.
            ClosedError: The hold was released, or its usage recorded.
        """
        more = to_microdollars(max_cost) - self.microdollars
        taken_from = self.taken_from
        if self.state != OPEN or taken_from is None:
            raise ClosedError(f"the hold was {self.state}; place a new one")
        with taken_from.parts_lock:
            if more <= taken_from.free:
                taken_from.free -= more
                self.microdollars += more
                return
            left = taken_from.free
        if self._short is not None:
            raise self._short(self.workspace_id, to_usd(left))

    def release(self, reason: str = "") -> None:
        """Give back what is held, unless a usage was recorded with it."""
        taken_from = self.taken_from
        if taken_from is None:
            super().release(reason)
        elif self.is_mine and self.state == OPEN:
            self.state = RELEASED
            taken_from.give_back(self.microdollars)

    def detach(self) -> None:
        """Not possible: it is this process's."""
        raise ClosedError("a part of a slice cannot be left to another process; place a hold of its own")

    def __enter__(self) -> Self:
        return self


class Slices:
    """Holds of one workspace and one amount, served from slices. Made by `taximeter.Meter.slices`; safe to use from several
    threads and after a fork, where the child places slices of its own.
    """  # noqa: D205 - one sentence

    def __init__(self, place: Callable[[], Slice], keeper: Callable[[], Keeper], microdollars: int) -> None:
        self._place = place
        self._keeper = keeper
        self._microdollars = microdollars
        self._slice: Slice | None = None
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def hold(self) -> PartOfSlice:
        """Hold the amount for one call; asks Redis only where the slice is used up.

        Raises:
            InsufficientCredit: What is available is less than the amount.
            HoldsUnavailableError: A new slice is needed, and Redis cannot be asked.
            ClosedError: The meter is closed.
        """
        if self._pid != os.getpid():
            self._slice, self._lock, self._pid = None, threading.Lock(), os.getpid()
        current, amount = self._slice, self._microdollars
        if current is None or not current.take(amount):
            current = self._refill(current)
        return PartOfSlice(self._keeper(), current, amount)

    def close(self) -> None:
        """Give back what no call has taken."""
        with self._lock:
            if self._slice is not None and self._pid == os.getpid():
                self._slice.retire()
                if self._slice.is_over():
                    self._keeper().release(self._slice, "its slices are closed")
            self._slice = None

    def _refill(self, used_up: Slice | None) -> Slice:
        with self._lock:
            current = self._slice
            if current is not None and current is not used_up and current.take(self._microdollars):
                return current  # another thread has placed it
            placed = self._place()
            placed.free = placed.microdollars
            if placed.id is None:  # Redis cannot be asked, and on_unknown is open
                placed.good_until = time.monotonic() + UNHELD_SECONDS
            if not placed.take(self._microdollars):
                error = placed.shortage()
                self._keeper().release(placed, "it does not pay for one call")
                raise error
            if current is not None:
                current.retire()
            self._slice = placed
            return placed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
