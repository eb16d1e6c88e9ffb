"""`Hold`: what `Meter.hold` returns."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from taximeter.errors import ClosedError
from taximeter.holds.amounts import to_microdollars, to_usd

if TYPE_CHECKING:
    from taximeter.holds.keeper import Keeper
    from taximeter.holds.server import Answer

Short = Callable[[str, Decimal], Exception]
"""Makes the error for a workspace that has only so much available."""
OPEN: Final = "open"
RECORDED: Final = "recorded"
RELEASED: Final = "released"


class Hold:
    """An amount set aside for one call. Use it as a context manager, with ``with`` or ``async with``.

    Within its context it is renewed for as long as the process lives, and released at the end if nothing was recorded with
    it. Without a context it lives for ``ttl_seconds``. In a forked child it is the parent's: the child may record with it,
    and neither renews nor releases it.

    Attributes:
        id: What usage events name; None if nothing is held (a dry run, or Redis cannot be asked and ``on_unknown`` is open).
        workspace_id: Whose balance is held.
        granted: Whether the balance affords it; False only in a dry run.
        held: USD that are held.
        available: USD that may still be held, as of the last answer; None if unknown.
        output_tokens: Where it was priced: as many output tokens does it pay for, beside the other quantities.
        ttl_seconds: How long it lives without a context.
    """

    def __init__(
        self, keeper: Keeper, workspace_id: str, hold_id: str | None, short: Short | None, *, ttl_seconds: float
    ) -> None:
        self.id = hold_id
        self.workspace_id = workspace_id
        self.granted = True
        self.held = Decimal(0)
        self.available: Decimal | None = None
        self.output_tokens: int | None = None
        self.ttl_seconds = ttl_seconds
        self.microdollars = 0
        self.live_seconds = ttl_seconds
        """How long Redis lets it live without a renewal."""
        self.state = OPEN
        self.within_context = False
        self.outlives = False
        """Redis was told that its usage is recorded, and it was not: the spool refused it."""
        self.ends_at = time.monotonic() + ttl_seconds
        self._keeper = keeper
        self._short = short
        self._pid = os.getpid()

    def accept(self, answer: Answer) -> Self:
        """Take over what Redis says of this hold."""
        if answer.held:
            self.microdollars = answer.held
            self.held = to_usd(answer.held)
        self.available = to_usd(answer.available)
        if answer.live_ms:
            self.live_seconds = answer.live_ms / 1000
        return self

    @property
    def is_mine(self) -> bool:
        """Whether this process placed it, and something is held."""
        return self.id is not None and self._pid == os.getpid()

    @property
    def record_option(self) -> bytes:
        """What `holds.lua` is told beside the action ``record``."""
        return b""

    def noted(self) -> None:
        """Redis knows that its usage is recorded."""

    def renewed(self, asked_at: float, live_seconds: float) -> None:
        """Redis lets it live `live_seconds` from `asked_at`, by `time.monotonic`."""

    def is_over(self) -> bool:
        """Whether it is renewed no more; Redis then lets it expire, unless its state has become that of a released one."""
        return not self.within_context and time.monotonic() >= self.ends_at

    def extend(self, max_cost: Decimal | str | int) -> None:
        """Hold ``max_cost`` USD in all from now on, and for another ``ttl_seconds``.

        Raises:
            InsufficientCredit: The balance does not afford it; what was held is still held.
            HoldsUnavailableError: Redis cannot be asked.
            ClosedError: The hold was released, or its usage recorded.
        """
        amount = to_microdollars(max_cost)
        if self.id is None:
            return
        if self.state != OPEN:
            raise ClosedError(f"the hold was {self.state}; place a new one")
        answer = self._keeper.extend(self, amount)
        if answer.short and self._short is not None:
            raise self._short(self.workspace_id, to_usd(answer.available))
        self.accept(answer)
        self.ends_at = time.monotonic() + self.ttl_seconds

    def release(self, reason: str = "") -> None:
        """Give back what is held. Does nothing after a usage was recorded with it: its booking settles the hold.

        Never raises where Redis does not answer: it is tried again, and the hold expires by itself.

        Args:
            reason: For the log, which has it at the level DEBUG.
        """
        if self.is_mine and self.state == OPEN:
            self._keeper.release(self, reason)

    def detach(self) -> None:
        """Leave it to somebody else, who extends, releases or records with it by its id: this process renews it no more."""
        self.within_context = False
        self._keeper.let_live(self)

    def drop(self) -> None:
        """Give back what is held, later: its holder is gone. Waits for nothing and takes no lock, as a finalizer must not."""
        if self.is_mine and self.state == OPEN:
            self.within_context = False
            self.state = RELEASED

    def __enter__(self) -> Self:
        if self.is_mine and self.state == OPEN:
            self.within_context = True
            self._keeper.keep(self, self.live_seconds)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.within_context = False
        self.release("nothing was recorded" if kind is None else kind.__name__)

    # Neither waits for anything but one answer of Redis, at most ``timeout_seconds``: a task cannot be cancelled within.
    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __repr__(self) -> str:
        return f"<Hold {self.id} of {self.workspace_id}: {self.held} USD, {self.state}>"
