"""Flags and balances in Redis: a copy of what PostgreSQL decided, written by compare-and-set.

Redis is never waited for longer than its timeout. When it does not answer, a circuit breaker keeps booking from waiting at
all for a while; the workspaces concerned are noted in the database (``taximeter_db.flag_debts``) and healed later.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
import redis

from taximeter import names
from taximeter_db.ledger.events import WorkspaceState
from taximeter_db.money import format_usd, status_of
from taximeter_worker.errors import FlagsUnavailableError
from taximeter_worker.flags.connecting import Client, connect_flags
from taximeter_worker.flags.scripts import read_lua, run_even_when_full

WORKSPACES_PER_CALL = 500
"""One script call blocks Redis for about 5 ms with this many, and is synced once."""
BREAKER_SECONDS = 0.5
BREAKER_SECONDS_MAX = 10.0
_RESULT_FLIPPED = "1"
_RESULT_REFUSED = "2"
_RESULT_LEFT_OUT = "3"

UNSETTLED_MAX = 200_000
"""At most this number of holds is remembered that Redis did not hear of; further ones expire by themselves, days later."""

Result = TypeVar("Result")
Holds = Mapping[str, Sequence[str]]
"""Ids of holds by workspace."""
NO_HOLDS: Holds = {}


class Written(msgspec.Struct):
    """What a write did: how many flags changed, and which workspaces Redis has a newer or a contradicting state of."""

    flipped: int = 0
    refused: list[str] = msgspec.field(default_factory=list)
    left_out: int = 0
    """New workspaces that are enabled, for which a server that is nearly full keeps no flag: a missing one says the same."""


_FLAGS_LUA = read_lua("flags.lua")
_encode = msgspec.msgpack.encode


def write_states(
    client: Client, states: Sequence[WorkspaceState], *, sparse: bool = False, holds: Holds = NO_HOLDS
) -> Written:
    """Write balances, and flags where they change, unless Redis has newer ones. Each workspace once: its newest state.

    With ``sparse`` nothing is added for workspaces that are enabled and have no flag yet. ``holds`` are settled in the same
    step as the balance is written: what they held is in it now, or in the newer one that Redis has.

    Raises:
        redis.RedisError, OSError: Redis did not take them; it may have taken a part.
    """
    written = Written()
    size = 1 if isinstance(client, redis.RedisCluster) else WORKSPACES_PER_CALL
    for start in range(0, len(states), size):
        chunk = states[start : start + size]
        for state, result in zip(chunk, _call(client, chunk, sparse=sparse, holds=holds), strict=True):
            if result == _RESULT_FLIPPED:
                written.flipped += 1
            elif result == _RESULT_REFUSED:
                written.refused.append(state.workspace_id)
            elif result == _RESULT_LEFT_OUT:
                written.left_out += 1
    return written


def _call(client: Client, states: Sequence[WorkspaceState], *, sparse: bool, holds: Holds) -> str:
    """One of the results above for each state."""
    keys: list[str] = []
    shared = _shared(states[0])
    values: list[Any] = [(*_texts(*shared), sparse)]
    flag_key, balance_key = names.flag_key, names.balance_key
    for state in states:
        workspace_id, balance = state.workspace_id, state.balance
        keys += (flag_key(workspace_id), balance_key(workspace_id))
        own = _shared(state)
        status = status_of(balance, state.minimum, state.low)
        values += (str(state.version), status, format_usd(balance), own != shared and _texts(*own))
    arguments = [_encode(values)]
    settled = (
        {i: list(holds[s.workspace_id]) for i, s in enumerate(states, 1) if s.workspace_id in holds} if holds else {}
    )
    budgets = {i: state.budgets for i, state in enumerate(states, 1) if state.budgets is not None}
    if settled or budgets:
        arguments.append(_encode(settled))
    if budgets:
        arguments.append(_encode(budgets))
    result: str = run_even_when_full(client, _FLAGS_LUA, keys, arguments)
    return result


def _shared(state: WorkspaceState) -> tuple[int, int, int, int]:
    """What most states of a batch have in common."""
    return state.epoch, state.recorded_at, state.minimum, state.low


def _texts(epoch: int, recorded_at: int, minimum: int, low: int) -> tuple[str, str, str, str]:
    return str(epoch), rfc3339(recorded_at), _limit_text(minimum), _limit_text(low)


# The states of a batch share their time and, mostly, their limits.
@functools.lru_cache(maxsize=64)
def rfc3339(microseconds: int) -> str:
    """A time in microseconds since the Unix epoch, as text in UTC."""
    seconds, rest = divmod(microseconds, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()}.{rest:06d}Z"


_limit_text = functools.lru_cache(maxsize=4096)(format_usd)


class FlagWriter:
    """Holds the connection for flags for several threads, and stops asking a Redis that does not answer."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._client: Client | None = None
        self._lock = threading.Lock()
        self._closed_until = 0.0
        self._pause_seconds = BREAKER_SECONDS
        self._unsettled: dict[str, list[str]] = {}
        """Holds whose usages are booked, of which Redis has not heard."""
        self.sparse = False
        """Whether Redis is so full that enabled workspaces without a flag get none."""

    @property
    def available(self) -> bool:
        """Whether the last call came through, or it is time to try again."""
        return time.monotonic() >= self._closed_until

    def call(self, function: Callable[..., Result], *args: Any) -> Result:
        """Call ``function(client, *args)``.

        Raises:
            FlagsUnavailableError: Redis failed or did not answer in time, or did so a moment ago.
        """
        if not self.available:
            raise FlagsUnavailableError("Redis did not answer a moment ago")
        client: Client | None = None
        try:
            client = self._connected()
            result = function(client, *args)
        except (redis.RedisError, OSError, FlagsUnavailableError) as error:
            self._forget(client)
            raise FlagsUnavailableError(f"{type(error).__name__}: {error}") from error
        self._pause_seconds = BREAKER_SECONDS
        return result

    def write(self, states: Sequence[WorkspaceState], holds: Holds = NO_HOLDS) -> Written:
        """Write these states and settle these holds; raises like `call`, and settles them with the workspaces' next write."""
        if holds or self._unsettled:
            holds = self._with_unsettled(states, holds)
        try:
            return self.call(functools.partial(write_states, sparse=self.sparse, holds=holds), states)
        except FlagsUnavailableError:
            self._keep_unsettled(holds)
            raise

    def _with_unsettled(self, states: Sequence[WorkspaceState], holds: Holds) -> Holds:
        with self._lock:
            owed = {s.workspace_id: self._unsettled.pop(s.workspace_id, []) for s in states}
        return {name: [*ids, *holds.get(name, ())] for name, ids in owed.items() if ids or name in holds}

    def _keep_unsettled(self, holds: Holds) -> None:
        with self._lock:
            room = UNSETTLED_MAX - sum(map(len, self._unsettled.values())) if holds else 0
            for workspace_id, ids in holds.items():
                self._unsettled.setdefault(workspace_id, []).extend(ids[: max(0, room)])
                room -= len(ids)

    def _connected(self) -> Client:
        with self._lock:
            if self._client is None:
                self._client = connect_flags(self._url, self._timeout_seconds)
            return self._client

    def _forget(self, client: Client | None) -> None:
        """After any error the next call connects again: the server may have been demoted, and another one be primary."""
        with self._lock:
            if client is self._client:
                # Not closed: other threads may be using it. The last of them lets go of it.
                self._client = None
            self._closed_until = time.monotonic() + self._pause_seconds
            self._pause_seconds = min(2 * self._pause_seconds, BREAKER_SECONDS_MAX)

    def close(self) -> None:
        """Disconnect."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None
