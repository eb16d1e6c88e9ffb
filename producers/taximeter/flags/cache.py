"""The flag cache: is AI enabled for this workspace, answered from memory.

Keys read:
    taximeter:flag:{<workspace>}  hash, fields enabled ("1" or "0"), status, since, budgets (those that are used up; see `budgets`)
    taximeter:flags:ready         present while the cache is warm: a missing flag then means a new workspace
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from taximeter import names
from taximeter.errors import ConfigurationError
from taximeter.flags import budgets as hard_budgets
from taximeter.flags.budgets import ANYONE, Caller, UsedUp
from taximeter.flags.tracking import FlagTracking

FIRST_CONNECTION_SECONDS: Final = 1.0
ENTRIES_MAX: Final = 100_000
DOUBT_SECONDS: Final = 5.0
"""How long a flag that is gone after an outage is not taken for a new workspace's: a worker looks at the mark each second."""
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
    """How long ago the answer was certainly true; a later change would be unknown. None if nothing is known."""


class _Flag(NamedTuple):
    enabled: bool
    status: str | None
    since: datetime | None
    budgets: tuple[UsedUp, ...] = ()

    def allows(self, caller: Caller) -> bool:
        return self.enabled and hard_budgets.concerning(self.budgets, caller) is None


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
    outage: bool = False
    """Since it was fetched, the connection was lost."""
    doubt_until: float = 0.0
    """Until then, that the flag is gone is not believed."""

    def lose(self, at: float) -> None:
        self.current = False
        if self.known_until is None:
            self.known_until = at


@dataclass(eq=False, slots=True)
class _Fetch:
    arrived: threading.Event = field(default_factory=threading.Event)
    entry: _Entry | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagSettings:
    """The settings of `taximeter.Meter` that concern flags; explained there."""

    redis_url: str = field(repr=False)
    timeout_seconds: float
    grace_seconds: float
    enabled_if_unknown: bool


class FlagCache:
    """Answers of one process, kept true by `FlagTracking`.

    Raises:
        ConfigurationError: The address cannot be understood.
    """

    def __init__(self, settings: FlagSettings) -> None:
        self.answers: dict[str, bool] = {}
        """Only what is certainly true now, whoever asks: workspaces with a budget that is used up are not here.

        Read without a lock; changed in place, never replaced.
        """
        self._entries: dict[str, _Entry] = {}
        self._fetches: dict[str, _Fetch] = {}
        self._lock = threading.RLock()
        self._settings = settings
        self._tracking = FlagTracking(settings.redis_url, self, stalled_after_seconds=settings.timeout_seconds)

    def start(self) -> None:
        """Connect in the background."""
        self._tracking.start()

    def wait_for_first_connection(self) -> None:
        """Wait until Redis has answered or failed for the first time, at most about a second.

        Raises:
            ConfigurationError: The server is one that cannot be followed, such as a Redis Cluster.
        """
        self._tracking.answers_within(FIRST_CONNECTION_SECONDS)
        if self._tracking.rejected is not None:
            raise ConfigurationError(self._tracking.rejected)

    def enabled(self, workspace_id: str, caller: Caller = ANYONE) -> bool:
        """Answer within the timeout: from memory, from Redis, or by policy."""
        flag = self._best_known(self._look_up(workspace_id), time.monotonic())
        return self._settings.enabled_if_unknown if flag is None else flag.allows(caller)

    def used_up(self, workspace_id: str, caller: Caller) -> UsedUp | None:
        """The hard budget that stands against a call, as far as it is known."""
        if workspace_id in self.answers:
            return None
        flag = self._best_known(self._look_up(workspace_id), time.monotonic())
        return None if flag is None else hard_budgets.concerning(flag.budgets, caller)

    def status(self, workspace_id: str) -> FlagStatus:
        """Like `enabled`, with what else is known."""
        entry = self._look_up(workspace_id)
        now = time.monotonic()
        flag = self._best_known(entry, now)
        if flag is None or entry is None:
            return FlagStatus(workspace_id, None, self._settings.enabled_if_unknown, None, None)
        certain_at = entry.known_until
        if certain_at is None:
            certain_at = max(entry.fetched_at, self._tracking.proof_at)
        return FlagStatus(workspace_id, flag.status, flag.allows(ANYONE), flag.since, max(0.0, now - certain_at))

    def close(self, *, wait: bool = True) -> None:
        """Drop the connection; wait for that, unless told otherwise."""
        self._tracking.close(wait=wait)

    def abandon(self) -> None:
        """In a forked child: let go of what was inherited."""
        self._tracking.abandon()

    def _best_known(self, entry: _Entry | None, now: float) -> _Flag | None:
        if entry is None or entry.known is None:
            return None
        if entry.known_until is None or now - entry.known_until <= self._settings.grace_seconds:
            return entry.known
        return None

    def _look_up(self, workspace_id: str) -> _Entry | None:
        entry = self._entries.get(workspace_id)
        if entry is not None and entry.current:
            return entry
        deadline = time.monotonic() + self._settings.timeout_seconds
        if not self._tracking.answers_within(self._settings.timeout_seconds):
            return entry
        with self._lock:
            fetch = self._fetches.get(workspace_id)
            asked = fetch is not None
            if fetch is None:
                fetch = self._fetches[workspace_id] = _Fetch()
        if not asked:
            self._tracking.request(workspace_id)
        fetch.arrived.wait(max(0.0, deadline - time.monotonic()))
        return fetch.entry or self._entries.get(workspace_id)

    def on_flag(self, workspace_id: str, flag: dict[bytes, bytes] | None, *, ready: bool) -> None:
        """Keep what Redis answered. A flag that is there and says nothing is not the missing one of a new workspace."""
        known = _read_flag(flag) if flag or flag is None else _NEW_WORKSPACE if ready else None
        now = time.monotonic()
        with self._lock:
            entry = _Entry(known, now)
            before = self._entries.pop(workspace_id, None)
            if before is not None and known is _NEW_WORKSPACE and _is_doubtful(before, now):
                # Perhaps Redis was started again and has lost flags, but not the mark: what was known stands in for a while,
                # and whoever asks looks again.
                before.doubt_until = before.doubt_until or now + DOUBT_SECONDS
                entry = before
            elif known is None:
                # The cache is cold, or the flag damaged: what was known before stands in for a while.
                if before is not None:
                    before.lose(now)
                    entry.known, entry.known_until = before.known, before.known_until
            elif known.budgets:
                self.answers.pop(workspace_id, None)
            else:
                self.answers[workspace_id] = known.enabled
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

    def on_expired(self) -> None:
        """Keep the answers as the last known ones; each is fetched again when somebody asks."""
        with self._lock:
            self.answers.clear()
            for entry in self._entries.values():
                if entry.current:
                    entry.lose(entry.fetched_at)

    def on_lost(self, known_until: float) -> None:
        """Trust nothing any more; whoever waits is answered by policy."""
        with self._lock:
            self.answers.clear()
            for entry in self._entries.values():
                entry.lose(known_until)
                entry.outage = True
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
            # A fetch in flight was executed after this change, or the invalidation would follow its answer.
            asked = workspace_id in self._fetches
            if not asked:
                self._fetches[workspace_id] = _Fetch()
        if not asked:
            self._tracking.request(workspace_id)

    def _lose_missing(self, now: float) -> None:
        """The cache turned warm or cold: what a missing flag means has changed."""
        with self._lock:
            for workspace_id, entry in self._entries.items():
                if entry.known in {None, _NEW_WORKSPACE} or entry.known_until is not None:
                    self.answers.pop(workspace_id, None)
                    entry.lose(now)


def _is_doubtful(before: _Entry, now: float) -> bool:
    """Whether a flag that was there before an outage may have been lost in it."""
    if not before.outage or before.known in {None, _NEW_WORKSPACE}:
        return False
    return before.doubt_until == 0.0 or now < before.doubt_until


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
    try:
        used_up = hard_budgets.read(flag.get(b"budgets"))
    except msgspec.DecodeError:
        return None
    return _Flag(enabled == b"1", status.decode("ascii", "replace") if status else None, changed_at, used_up)
