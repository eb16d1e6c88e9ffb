"""Keeps the holds of one process alive, and sees to it that what Redis has not heard yet reaches it.

One thread, started with the first hold that needs it. What is released while Redis does not answer is released later; so is
the note that a usage was recorded, before which its hold could expire although nobody has paid yet.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Final

from taximeter.errors import HoldsUnavailableError, InvalidEventError
from taximeter.holds.amounts import to_usd
from taximeter.holds.hold import OPEN, RECORDED, RELEASED, Hold
from taximeter.holds.server import Answer, HoldServer
from taximeter.outage import logger

RENEWALS_IN_A_LIFE: Final = 3
TRY_AGAIN_SECONDS: Final = 1.0
LIVE_MS_MAX: Final = 10**9
"""Redis shortens a life to what the workers allow; the holds that live longer are renewed."""


class Keeper:
    """Places holds, renews them, and ends them. Safe to use from several threads, not after a fork."""

    def __init__(self, server: HoldServer) -> None:
        self.server = server
        # Re-entrant: a finalizer that ends a call may run anywhere, also in here.
        self._lock = threading.RLock()
        self._due: dict[Hold, float] = {}
        """When each hold is to be looked after, by `time.monotonic`."""
        self._wake = threading.Event()
        self._wakes_at = 0.0
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._pid = os.getpid()

    def place(self, hold: Hold, microdollars: int, option: bytes) -> Answer:
        """Ask for a hold. Raises `HoldsUnavailableError` like `HoldServer.call`."""
        answer = self._call(b"hold", hold, microdollars, option)
        if answer.granted and answer.live_ms < hold.ttl_seconds * 1000 and option != b"dry":
            self.keep(hold, answer.live_ms / 1000)
        return answer

    def keep(self, hold: Hold, live_seconds: float) -> None:
        """Renew a hold from now on; without renewal it lives this long."""
        self._look_at(hold, live_seconds / RENEWALS_IN_A_LIFE)

    def extend(self, hold: Hold, microdollars: int) -> Answer:
        """Change what a hold holds; raises `HoldsUnavailableError` where nothing can be said."""
        answer = self._call(b"keep", hold, microdollars)
        if not answer.short:
            require_granted(answer)
        return answer

    def release(self, hold: Hold, reason: str) -> None:
        """Give back what a hold holds, later if Redis does not answer."""
        hold.state = RELEASED
        logger.debug("hold %s of %s is released: %s", hold.id, hold.workspace_id, reason)
        try:
            hold.available = to_usd(self._end(hold).available)
        except HoldsUnavailableError:
            self._look_at(hold, TRY_AGAIN_SECONDS)
        else:
            self._forget(hold)

    @contextlib.contextmanager
    def recording(self, workspace_id: str, hold: Hold | str) -> Iterator[None]:
        """While a usage goes into the spool, and until it is booked, its hold does not expire.

        Redis is told before the event is in the spool: in the other order, a process that died between the two would leave a
        usage without a hold. If it does not answer, it is told later.
        """
        if isinstance(hold, Hold) and hold.workspace_id != workspace_id:
            raise InvalidEventError("bad_text", "hold", "is another workspace's")
        mine = hold if isinstance(hold, Hold) else Hold(self, workspace_id, hold, None, ttl_seconds=0)
        if mine.id is None:
            yield
            return
        before, mine.state = mine.state, RECORDED
        try:
            self._record(mine)
            self._forget(mine)
        except HoldsUnavailableError:
            self._look_at(mine, TRY_AGAIN_SECONDS)
        try:
            yield
        except BaseException:
            mine.state = before
            if mine is hold and before == OPEN:
                mine.outlives = True
                self._look_at(mine, 0)
            raise

    def stop(self) -> None:
        """Stop the thread and let go of the connections, without waiting; what is open expires."""
        self._stopping = True
        self._wake.set()
        self.server.close()

    def close(self) -> None:
        """Stop the thread, give back what is open, and let go of the connections."""
        with self._lock:
            self._stopping = True
            left = [hold for hold, _ in self._all_due() if hold.state != RECORDED]
        self._wake.set()
        if self._thread is not None:
            self._thread.join(TRY_AGAIN_SECONDS)
        for hold in left:
            hold.state = RELEASED
            with contextlib.suppress(HoldsUnavailableError):
                self._end(hold)
        self.server.close()

    def abandon(self) -> None:
        """In a forked child: let go of what was inherited, and leave the parent's holds and connections alone."""
        self._due.clear()
        self.server.abandon()

    def _call(self, action: bytes, hold: Hold, microdollars: int | None = None, option: bytes = b"") -> Answer:
        amount = hold.microdollars if microdollars is None else microdollars
        live_ms = min(LIVE_MS_MAX, int(hold.ttl_seconds * 1000))
        return self.server.call(
            action, hold.workspace_id, hold.id or "", microdollars=amount, live_ms=live_ms, option=option
        )

    def _record(self, hold: Hold) -> Answer:
        answer = self._call(b"record", hold, option=hold.record_option)
        hold.noted()
        return answer

    def _end(self, hold: Hold) -> Answer:
        return self._call(b"release", hold, option=b"unrecord" if hold.outlives else b"")

    def let_live(self, hold: Hold) -> None:
        """Renew a hold no more."""
        self._forget(hold)

    def _forget(self, hold: Hold) -> None:
        with self._lock:
            self._due.pop(hold, None)

    def _look_at(self, hold: Hold, in_seconds: float) -> None:
        """Look after a hold after that time, in the keeper's thread."""
        at = time.monotonic() + in_seconds
        with self._lock:
            if self._stopping:
                return
            self._due[hold] = at
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="taximeter-holds", daemon=True)
                self._thread.start()
            if at < self._wakes_at:
                self._wake.set()

    def _run(self) -> None:
        while not self._stopping:
            now = time.monotonic()
            for hold in [hold for hold, at in self._all_due() if at <= now]:
                self._look_after(hold)
            with self._lock:
                self._wakes_at = min([at for _, at in self._all_due()], default=now + 3600)
                self._wake.clear()
            self._wake.wait(max(0.0, self._wakes_at - time.monotonic()))

    def _all_due(self) -> list[tuple[Hold, float]]:
        """A copy, which a finalizer cannot change under our hands."""
        while True:
            try:
                with self._lock:
                    return list(self._due.items())
            except RuntimeError:  # changed meanwhile, by a finalizer within this thread
                continue

    def _look_after(self, hold: Hold) -> None:
        """Bring one hold to where it should be in Redis, and say when to look again."""
        state = hold.state
        if state == OPEN and hold.is_over():
            state = hold.state
            if state == OPEN:
                self._forget(hold)  # Redis lets it expire
                return
        asked_at = time.monotonic()
        try:
            if state == OPEN:
                answer = self._call(b"keep", hold, option=b"unrecord" if hold.outlives else b"")
                hold.outlives = False
            else:
                answer = self._record(hold) if state == RECORDED else self._end(hold)
        except HoldsUnavailableError:
            self._put_off(hold, TRY_AGAIN_SECONDS)
            return
        if hold.state != state:  # while this was on its way
            self._put_off(hold, 0)
        elif state != OPEN:
            self._forget(hold)
        elif answer.granted:
            hold.renewed(asked_at, answer.live_ms / 1000)
            self._put_off(hold, answer.live_ms / 1000 / RENEWALS_IN_A_LIFE)
        else:
            logger.warning("a hold of workspace %s had expired, and its amount is not available now", hold.workspace_id)
            self._put_off(hold, TRY_AGAIN_SECONDS)

    def _put_off(self, hold: Hold, seconds: float) -> None:
        with self._lock:
            if hold in self._due or hold.state != OPEN:
                self._due[hold] = time.monotonic() + seconds


def require_granted(answer: Answer) -> None:
    """Raise `HoldsUnavailableError` where Redis grants nothing, whatever the balance is."""
    if answer.granted:
        return
    if answer.waiting:
        raise HoldsUnavailableError(
            f"Redis may have lost holds; none is granted for {answer.wait_ms / 1000:.0f} s, until they would have expired",
            retry_after_seconds=answer.wait_ms / 1000,
        )
    raise HoldsUnavailableError("the flags in Redis are not complete: no worker has looked after them since it started")
