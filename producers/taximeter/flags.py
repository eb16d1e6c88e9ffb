"""The flag cache: is AI enabled for this workspace, answered from memory.

Keys read:
    taximeter:flag:{<workspace>}  hash, fields enabled ("1" or "0"), status, since
    taximeter:flags:ready         present while the cache is warm: a missing flag then means a new workspace
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from taximeter import names
from taximeter.flag_link import FlagLink

FIRST_CONNECTION_SECONDS: Final = 1.0
ENTRIES_MAX: Final = 100_000
_KEY_START: Final = f"{names.FLAG_PREFIX}{{".encode()
_KEY_END: Final = b"}"
_READY_KEY: Final = names.FLAGS_READY.encode()


class FlagStatus(NamedTuple):
    """What is known about a workspace."""

    workspace_id: str
    status: str | None
    """``sufficient``, ``low`` or ``insufficient``; None if nothing is known and the policy decided."""
    enabled: bool
    since: datetime | None
    """When status or enabled last changed; None for a new workspace or if nothing is known."""
    stale_seconds: float | None
    """The answer was certainly true so long ago, and a later change would be unknown. None if nothing is known."""


class _Flag(NamedTuple):
    enabled: bool
    status: str | None
    since: datetime | None


_NEW_WORKSPACE: Final = _Flag(enabled=True, status=names.STATUS_SUFFICIENT, since=None)


@dataclass(eq=False, slots=True)
class _Entry:
    known: _Flag | None
    """The last definite answer. None: Redis was reached, and the cache was cold."""
    fetched_at: float
    current: bool = True
    """Redis would have told us if it had changed."""
    known_until: float | None = None
    """When ``known`` ceased to be certain; None while it is."""

    def lose(self, at: float) -> None:
        self.current = False
        if self.known_until is None:
            self.known_until = at


@dataclass(eq=False, slots=True)
class _Fetch:
    arrived: threading.Event = field(default_factory=threading.Event)
    entry: _Entry | None = None


class FlagCache:
    """Answers of one process, kept true by a `FlagLink`.

    Args:
        url: Redis address in redis-py's form.
        timeout_seconds: Longest wait for Redis.
        grace_seconds: How long the last known answer stands in when Redis cannot answer.
        on_unknown: The answer when there is none.
    """

    def __init__(self, url: str, *, timeout_seconds: float, grace_seconds: float, on_unknown: bool) -> None:
        self.answers: dict[str, bool] = {}
        """Only what is certainly true now. Read without a lock; changed in place, never replaced."""
        self._entries: dict[str, _Entry] = {}
        self._fetches: dict[str, _Fetch] = {}
        self._lock = threading.RLock()
        self._timeout_seconds = timeout_seconds
        self._grace_seconds = grace_seconds
        self._on_unknown = on_unknown
        self._link = FlagLink(url, self, stalled_after_seconds=timeout_seconds)

    def start(self) -> None:
        """Connect in the background."""
        self._link.start()

    def wait_for_first_connection(self) -> None:
        """Wait until Redis has answered or failed for the first time, at most about a second."""
        self._link.answers_within(FIRST_CONNECTION_SECONDS)

    def enabled(self, workspace_id: str) -> bool:
        """Answer within the timeout: from memory, from Redis, or by policy."""
        entry = self._look_up(workspace_id)
        flag = self._best_known(entry, time.monotonic())
        return self._on_unknown if flag is None else flag.enabled

    def status(self, workspace_id: str) -> FlagStatus:
        """Like `enabled`, with what else is known."""
        entry = self._look_up(workspace_id)
        now = time.monotonic()
        flag = self._best_known(entry, now)
        if flag is None or entry is None:
            return FlagStatus(workspace_id, None, self._on_unknown, None, None)
        certain_at = entry.known_until
        if certain_at is None:
            certain_at = max(entry.fetched_at, self._link.proof_at)
        return FlagStatus(workspace_id, flag.status, flag.enabled, flag.since, max(0.0, now - certain_at))

    def close(self) -> None:
        """Drop the connection."""
        self._link.close()

    def abandon(self) -> None:
        """In a forked child: let go of what was inherited."""
        self._link.abandon()

    def _best_known(self, entry: _Entry | None, now: float) -> _Flag | None:
        if entry is None or entry.known is None:
            return None
        if entry.known_until is None or now - entry.known_until <= self._grace_seconds:
            return entry.known
        return None

    def _look_up(self, workspace_id: str) -> _Entry | None:
        entry = self._entries.get(workspace_id)
        if entry is not None and entry.current:
            return entry
        deadline = time.monotonic() + self._timeout_seconds
        if not self._link.answers_within(self._timeout_seconds):
            return entry
        with self._lock:
            fetch = self._fetches.get(workspace_id)
            asked = fetch is not None
            if fetch is None:
                fetch = self._fetches[workspace_id] = _Fetch()
        if not asked:
            self._link.request(workspace_id)
        fetch.arrived.wait(max(0.0, deadline - time.monotonic()))
        return fetch.entry or self._entries.get(workspace_id)

    def on_flag(self, workspace_id: str, flag: dict[bytes, bytes] | None, *, ready: bool) -> None:
        """Keep what Redis answered. A flag that is there and says nothing is not the missing one of a new workspace."""
        found = _read_flag(flag) if flag or flag is None else _NEW_WORKSPACE if ready else None
        now = time.monotonic()
        with self._lock:
            entry = _Entry(found, now)
            before = self._entries.pop(workspace_id, None)
            if found is None:
                # The cache is cold, or the flag damaged: what was known before stands in for a while.
                if before is not None:
                    before.lose(now)
                    entry.known, entry.known_until = before.known, before.known_until
            else:
                self.answers[workspace_id] = found.enabled
            if len(self._entries) >= ENTRIES_MAX:
                eldest = next(iter(self._entries))
                del self._entries[eldest]
                self.answers.pop(eldest, None)
            self._entries[workspace_id] = entry
            fetch = self._fetches.pop(workspace_id, None)
        if fetch is not None:
            fetch.entry = entry
            fetch.arrived.set()

    def on_changed(self, keys: list[bytes] | None) -> None:
        """Forget what changed, and fetch it again if it was in use."""
        now = time.monotonic()
        if keys is None:
            self.on_lost(now)
            return
        for key in keys:
            if key == _READY_KEY:
                self._lose_missing(now)
            elif key.startswith(_KEY_START) and key.endswith(_KEY_END):
                self._lose(key[len(_KEY_START) : -len(_KEY_END)].decode("ascii", "replace"), now)

    def on_lost(self, known_until: float) -> None:
        """Trust nothing any more; whoever waits is answered by policy."""
        with self._lock:
            self.answers.clear()
            for entry in self._entries.values():
                entry.lose(known_until)
            waiting, self._fetches = self._fetches, {}
        for fetch in waiting.values():
            fetch.arrived.set()

    def _lose(self, workspace_id: str, now: float) -> None:
        with self._lock:
            entry = self._entries.get(workspace_id)
            if entry is None:
                return
            self.answers.pop(workspace_id, None)
            entry.lose(now)
            # A fetch on its way was executed after this change, or the invalidation would follow its answer.
            asked = workspace_id in self._fetches
            if not asked:
                self._fetches[workspace_id] = _Fetch()
        if not asked:
            self._link.request(workspace_id)

    def _lose_missing(self, now: float) -> None:
        """The cache turned warm or cold: what a missing flag means has changed."""
        with self._lock:
            for workspace_id, entry in self._entries.items():
                if entry.known in {None, _NEW_WORKSPACE} or entry.known_until is not None:
                    self.answers.pop(workspace_id, None)
                    entry.lose(now)


def _read_flag(flag: dict[bytes, bytes] | None) -> _Flag | None:
    if flag is None:
        return None
    enabled = flag.get(b"enabled")
    if enabled not in {b"0", b"1"}:
        return None
    since = flag.get(b"since", b"").decode("ascii", "replace")
    try:
        changed_at = datetime.fromisoformat(since)
    except ValueError:
        changed_at = None
    status = flag.get(b"status")
    return _Flag(enabled == b"1", status.decode("ascii", "replace") if status else None, changed_at)
