"""Flags and balances in Redis: a copy of what PostgreSQL decided, written by compare-and-set.

Redis is never waited for longer than its timeout. When it does not answer, a circuit breaker keeps booking from waiting at
all for a while; the workspaces concerned are noted in the database (``taximeter_db.flags_state``) and healed later.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from taximeter import names
from taximeter.tls import explained
from taximeter_db.events import WorkspaceState
from taximeter_db.flags_state import Place
from taximeter_db.money import format_usd, status_of
from taximeter_worker.errors import FlagsUnavailable

WORKSPACES_PER_CALL = 500
"""One script call blocks Redis for about 5 ms with so many, and is synced once."""
PLACE_KEY = "taximeter:place"
"""Not among the keys whose changes are pushed to tools: it changes every second."""
BREAKER_SECONDS = 0.5
BREAKER_SECONDS_MAX = 10.0
_RESULT_FLIPPED = "1"
_RESULT_REFUSED = "2"

Client = Any
"""A redis-py client, of a single node or of a cluster."""


class Position(msgspec.Struct):
    """What Redis has of a workspace: (epoch, version) orders its states, and one version has one balance."""

    order: tuple[int, int] = (0, 0)
    balance: str | None = None

    def ahead_of(self, state: WorkspaceState) -> bool:
        """Whether this cannot have come from a database that now says `state`."""
        current = (state.epoch, state.version)
        return self.order > current or (
            self.order == current and self.balance is not None and self.balance != format_usd(state.balance)
        )


class Written(msgspec.Struct):
    """What a write did: how many flags changed, and which workspaces Redis has a newer or a contradicting state of."""

    flipped: int = 0
    refused: list[str] = msgspec.field(default_factory=list)


def read_lua(name: str) -> str:
    """Source of one of the package's scripts."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


_FLAGS_LUA = read_lua("flags.lua")
_encode = msgspec.msgpack.encode


def connect_flags(url: str, timeout_seconds: float = 1.0) -> Client:
    """A client for the flag Redis, of the kind that the server is (single node or cluster).

    Raises:
        FlagsUnavailable: the server does not answer within the timeout.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "protocol": 2,
        "decode_responses": True,
        # Said aloud: with the ten retries that redis-py has by default in places, a timeout of one second is ten.
        "retry": Retry(NoBackoff(), 0),
    }
    client = redis.Redis.from_url(url, **options)
    try:
        clustered = client.info("cluster").get("cluster_enabled")
        if not clustered:
            return client
        client.close()
        return redis.RedisCluster.from_url(url, **options)
    except (redis.RedisError, OSError) as error:
        client.close()
        told = explained(error) if url.startswith("rediss://") else error
        what = "refuses us" if isinstance(error, redis.ResponseError | redis.AuthenticationError) else "does not answer"
        raise FlagsUnavailable(f"Redis {what}: {type(error).__name__}: {told}") from error


def write_states(client: Client, states: Sequence[WorkspaceState]) -> Written:
    """Write balances, and flags where they change, unless Redis has newer ones. Each workspace once: its newest state.

    Raises:
        redis.RedisError, OSError: Redis did not take them; it may have taken a part.
    """
    written = Written()
    size = 1 if isinstance(client, redis.RedisCluster) else WORKSPACES_PER_CALL
    for start in range(0, len(states), size):
        chunk = states[start : start + size]
        for state, result in zip(chunk, _call(client, chunk), strict=True):
            if result == _RESULT_FLIPPED:
                written.flipped += 1
            elif result == _RESULT_REFUSED:
                written.refused.append(state.workspace_id)
    return written


def _call(client: Client, states: Sequence[WorkspaceState]) -> str:
    """One of the results above for each state."""
    keys: list[str] = []
    shared = _shared(states[0])
    values: list[Any] = [_texts(*shared)]
    flag_key, balance_key = names.flag_key, names.balance_key
    for state in states:
        workspace_id, balance = state.workspace_id, state.balance
        keys += (flag_key(workspace_id), balance_key(workspace_id))
        own = _shared(state)
        status = status_of(balance, state.minimum, state.low)
        values += (str(state.version), status, format_usd(balance), own != shared and _texts(*own))
    result: str = run_script(client, _FLAGS_LUA, keys, [_encode(values)])
    return result


def _shared(state: WorkspaceState) -> tuple[int, int, int, int]:
    """What most states of a batch have in common."""
    return state.epoch, state.recorded_at, state.minimum, state.low


def _texts(epoch: int, recorded_at: int, minimum: int, low: int) -> tuple[str, str, str, str]:
    return str(epoch), rfc3339(recorded_at), _limit_text(minimum), _limit_text(low)


def run_script(client: Client, source: str, keys: Sequence[str], args: Sequence[str | int | bytes]) -> Any:
    """EVALSHA, with EVAL where the server does not know the script yet."""
    try:
        return client.evalsha(_sha(source), len(keys), *keys, *args)
    except redis.exceptions.NoScriptError:
        return client.eval(source, len(keys), *keys, *args)


_shas: dict[str, str] = {}


def _sha(source: str) -> str:
    if source not in _shas:
        import hashlib

        # SHA-1 is the name that Redis gives a script, nothing is protected by it.
        _shas[source] = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return _shas[source]


# The states of a batch share their time and, mostly, their limits.
@functools.lru_cache(maxsize=64)
def rfc3339(microseconds: int) -> str:
    """A time in microseconds since the Unix epoch, as text in UTC."""
    seconds, rest = divmod(microseconds, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()}.{rest:06d}Z"


_limit_text = functools.lru_cache(maxsize=4096)(format_usd)


def read_positions(client: Client, workspace_ids: Iterable[str]) -> dict[str, Position]:
    """What Redis has of each workspace; an empty ``Position`` where it has nothing."""
    positions = {}
    for workspace_id in workspace_ids:
        found = Position()
        for key in (names.balance_key(workspace_id), names.flag_key(workspace_id)):
            try:
                epoch, version, balance = client.hmget(key, "epoch", "version", "balance")
            except redis.ResponseError as error:
                if "WRONGTYPE" not in str(error):
                    raise
                continue  # none of ours: the next write replaces it
            order = (count(epoch), count(version))
            if epoch and version and order > found.order:
                found = Position(order, balance)
        positions[workspace_id] = found
    return positions


def note_place(client: Client, place: Place) -> None:
    """Write down how far the database was when its flags were last looked after."""
    client.set(PLACE_KEY, " ".join(map(str, place)))


def read_place(client: Client) -> Place | None:
    """How far it was then; None where nobody has noted it."""
    try:
        system, timeline, position = (client.get(PLACE_KEY) or "").split(" ")
        return Place(int(system), timeline, int(position))
    except (ValueError, redis.ResponseError):
        return None


def count(text: object) -> int:
    """An epoch or version as Redis has it; 0 for what no writer of ours has left, as in ``flags.lua``."""
    return int(text) if isinstance(text, str) and len(text) < 19 and text.isascii() and text.isdigit() else 0


class FlagWriter:
    """Writes flags for the booking threads, and stops asking a Redis that does not answer."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._client: Client | None = None
        self._lock = threading.Lock()
        self._closed_until = 0.0
        self._pause_seconds = BREAKER_SECONDS

    @property
    def available(self) -> bool:
        """Whether the last call came through, or it is time to try again."""
        return time.monotonic() >= self._closed_until

    def call(self, function: Any, *args: Any) -> Any:
        """Call ``function(client, *args)``.

        Raises:
            FlagsUnavailable: Redis failed or did not answer in time, or did so a moment ago.
        """
        if not self.available:
            raise FlagsUnavailable("Redis did not answer a moment ago")
        try:
            result = function(self._connected(), *args)
        except (redis.RedisError, OSError, FlagsUnavailable) as error:
            with self._lock:
                self._closed_until = time.monotonic() + self._pause_seconds
                self._pause_seconds = min(2 * self._pause_seconds, BREAKER_SECONDS_MAX)
            raise FlagsUnavailable(f"{type(error).__name__}: {error}") from error
        self._pause_seconds = BREAKER_SECONDS
        return result

    def _connected(self) -> Client:
        with self._lock:
            if self._client is None:
                self._client = connect_flags(self._url, self._timeout_seconds)
            return self._client

    def close(self) -> None:
        """Disconnect."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None


def forget_ready(client: Client) -> None:
    """Declare the cache cold; the next housekeeper makes it anew."""
    client.delete(names.FLAGS_READY)
