"""Holds without Redis, for `taximeter.testing`: what `holds.lua` does, for one process. One test suite holds both to it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Final

from taximeter.holds.amounts import HOLD_USD_MAX, to_microdollars
from taximeter.holds.server import Answer

LIVE_MS_MAX: Final = 60_000
RECORDED_MS: Final = 7 * 86_400_000
CAP: Final = to_microdollars(HOLD_USD_MAX)


@dataclass(slots=True)
class _Open:
    microdollars: int
    due_ms: float


class MemoryHolds:
    """Stands for `taximeter.holds.server.HoldServer`. Safe to use from several threads."""

    def __init__(self) -> None:
        self.balances: dict[str, int] = {}
        """What each workspace has beyond its minimum, in microdollars; one that is not here has no end of it."""
        self._open: dict[str, dict[str, _Open]] = {}
        self._lock = threading.Lock()

    def call(
        self,
        action: bytes,
        workspace_id: str,
        hold_id: str = "",
        *,
        microdollars: int = 0,
        live_ms: int = 0,
        option: bytes = b"",
    ) -> Answer:
        """As `HoldServer.call`; never fails."""
        now = time.monotonic() * 1000
        live_ms = min(live_ms, LIVE_MS_MAX)
        with self._lock:
            holds = self._open.setdefault(workspace_id, {})
            for key in [key for key, hold in holds.items() if hold.due_ms <= now]:
                del holds[key]
            total = sum(hold.microdollars for hold in holds.values())
            available = self.balances.get(workspace_id, CAP) - total
            own = holds.get(hold_id)
            if action == b"hold" and own is not None:
                live_ms = int(own.due_ms - now)
            elif action == b"hold":
                if microdollars > available and (option != b"cap" or available <= 0):
                    return _answer(available, total, None, short=True)
                if option != b"dry":
                    holds[hold_id] = _Open(min(microdollars, available), now + live_ms)
            elif action == b"keep":
                change = microdollars - (own.microdollars if own is not None else 0)
                if change > 0 and change > available:
                    return _answer(available, total, own, short=True)
                left = own.due_ms if own is not None and option != b"unrecord" else 0
                holds[hold_id] = _Open(microdollars, max(left, now + live_ms))
            elif action == b"record" and (own is not None or microdollars > 0):
                held = own.microdollars if own is not None else microdollars
                if own is None and (slice_of := holds.get(option.decode())) is not None:
                    slice_of.microdollars = max(0, slice_of.microdollars - held)
                holds[hold_id] = _Open(held, now + RECORDED_MS)
            elif action == b"release" and own is not None and (option or own.due_ms - now <= LIVE_MS_MAX):
                del holds[hold_id]
            after = sum(hold.microdollars for hold in holds.values())
            return _answer(available + total - after, after, holds.get(hold_id), live_ms=live_ms)

    def clear(self) -> None:
        """Forget all holds."""
        with self._lock:
            self._open.clear()

    def close(self) -> None:
        """Nothing is held open."""

    def abandon(self) -> None:
        """Nothing is shared."""


def _answer(available: int, total: int, own: _Open | None, *, short: bool = False, live_ms: int = 0) -> Answer:
    held = own.microdollars if own is not None else 0
    return Answer(not short, short, False, available, total, held, live_ms, 0)
