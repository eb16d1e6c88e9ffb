"""Making the flag cache anew from PostgreSQL: after a flush, a restart without data, or a restored database."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import msgspec
import redis
import structlog
from psycopg import Connection

from taximeter import names
from taximeter_db import flags_state
from taximeter_worker import failpoints
from taximeter_worker.flags import Client, Written, count, read_lua, run_script, write_states

log = structlog.get_logger(__name__)

CHUNK_WORKSPACES = 1000
CHUNKS_IN_FLIGHT = 2
"""One is prepared while Redis writes the other."""
KEYS_PER_SCAN = 1000
"""One script call blocks Redis for about 2 ms with so many."""
_SWEEP_LUA = read_lua("sweep.lua")
_SCAN_LUA = read_lua("scan.lua")

Progress = Callable[[int], None]


class Rebuilt(msgspec.Struct):
    """What a rebuild did: under which epoch, how many workspaces, how many flags changed or were dropped."""

    epoch: int
    workspaces: int = 0
    flipped: int = 0
    swept: int = 0


class _Walked(msgspec.Struct):
    """What a walk over the flags met: how many, their highest epoch, and how many workspaces it dropped."""

    flags: int = 0
    highest: int = 0
    dropped: int = 0


def rebuild(
    conn: Connection[Any], client: Client, progress: Progress | None = None, *, only_if_cold: bool = False
) -> Rebuilt | None:
    """Write flag and balance of every workspace under a new epoch, drop those of unknown ones, mark the cache warm.

    Booking goes on meanwhile: the compare-and-set puts both in order. Waits for a rebuild that is under way.

    Args:
        conn: in autocommit mode.
        client: from ``connect_flags``.
        progress: called with the number of workspaces written so far.
        only_if_cold: do nothing when another rebuild has made the cache warm while this one waited.

    Returns:
        What was done; None where nothing had to be.

    Raises:
        redis.RedisError, OSError: Redis failed; the cache stays cold until the next attempt.
    """
    with flags_state.rebuild_lock(conn, wait=True):
        if only_if_cold and client.exists(names.FLAGS_READY):
            return None
        # Above every epoch that Redis has seen, too: the database may have been restored to before the last one.
        before = _walk(client)
        done = Rebuilt(epoch=flags_state.next_epoch(conn, above=before.highest))
        failpoints.hit("after_new_epoch")
        for workspaces, written in _write_all(conn, client):
            # What is refused was booked meanwhile under the same epoch, by a worker that wrote it first.
            done.flipped += written.flipped
            done.workspaces += workspaces
            if progress is not None:
                progress(done.workspaces)
        if before.flags:
            # Where there was none, all that came since came from the database as it is now.
            done.swept = _walk(client, done.epoch).dropped
        failpoints.hit("before_ready")
        client.set(names.FLAGS_READY, str(done.epoch))
    log.info("flags_rebuilt", epoch=done.epoch, workspaces=done.workspaces, swept=done.swept)
    return done


def _write_all(conn: Connection[Any], client: Client) -> Iterator[tuple[int, Written]]:
    """Write every workspace's state; yields, for each chunk, how many it had and what became of them."""
    in_flight: deque[tuple[int, Future[Written]]] = deque()
    with ThreadPoolExecutor(CHUNKS_IN_FLIGHT) as pool:
        for states in flags_state.all_states(conn, CHUNK_WORKSPACES):
            if len(in_flight) == CHUNKS_IN_FLIGHT:
                workspaces, future = in_flight.popleft()
                yield workspaces, future.result()
            in_flight.append((len(states), pool.submit(write_states, client, states)))
        for workspaces, future in in_flight:
            yield workspaces, future.result()


def _walk(client: Client, floor: int | None = None) -> _Walked:
    """Look at the epoch of every workspace that has a flag, and drop those below `floor` (None: drop nothing)."""
    if isinstance(client, redis.RedisCluster):
        return _walk_cluster(client, floor)
    walked = _Walked()
    cursor = "0"
    least = "" if floor is None else str(floor)
    while True:
        args = [cursor, str(KEYS_PER_SCAN), names.FLAG_PREFIX, names.BALANCE_PREFIX, least]
        cursor, met, highest, dropped = run_script(client, _SCAN_LUA, [], args)
        walked.flags += met
        walked.highest = max(walked.highest, int(highest or 0))
        walked.dropped += dropped
        if cursor == "0":
            return walked


def _walk_cluster(client: Client, floor: int | None) -> _Walked:
    """The same, key by key: on a cluster a script sees one slot."""
    walked = _Walked()
    keys = client.scan_iter(match=names.FLAG_PREFIX + "{*", count=KEYS_PER_SCAN)
    while page := [key.removeprefix(names.FLAG_PREFIX)[1:-1] for key in itertools.islice(keys, KEYS_PER_SCAN)]:
        pipeline = client.pipeline(transaction=False)
        for workspace_id in page:
            pipeline.hget(names.balance_key(workspace_id), "epoch")
            pipeline.hget(names.flag_key(workspace_id), "epoch")
        epochs = map(count, pipeline.execute(raise_on_error=False))
        for workspace_id, of_balance, of_flag in zip(page, epochs, epochs, strict=True):
            stored = max(of_balance, of_flag)
            walked.flags += 1
            walked.highest = max(walked.highest, stored)
            if floor is not None and stored < floor:
                both = [names.flag_key(workspace_id), names.balance_key(workspace_id)]
                walked.dropped += run_script(client, _SWEEP_LUA, both, [floor])
    return walked
