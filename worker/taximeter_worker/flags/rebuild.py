"""Rebuilding the flags from PostgreSQL: after a flush, a restart of Redis, or a restored database."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import msgspec
import redis
import structlog
from psycopg import Connection

from taximeter import names
from taximeter_db import flag_debts, locks
from taximeter_db.ledger.events import WorkspaceState
from taximeter_db.locks import AdvisoryLock
from taximeter_worker import failpoints
from taximeter_worker.flags import marks
from taximeter_worker.flags.connecting import Client, server_state
from taximeter_worker.flags.marks import HoldTerms
from taximeter_worker.flags.scripts import read_lua, run_script
from taximeter_worker.flags.writer import Written, write_states

log = structlog.get_logger(__name__)

CHUNK_WORKSPACES = 1000
CHUNKS_IN_FLIGHT = 2
"""One is prepared while Redis writes the other."""
KEYS_PER_SCAN = 1000
"""One script call blocks Redis for about 2 ms with this many."""
_SWEEP_LUA = read_lua("sweep.lua")
_SCAN_LUA = read_lua("scan.lua")

_DEFAULT_TERMS = HoldTerms()

Progress = Callable[[int], None]


class Rebuilt(msgspec.Struct):
    """What a rebuild did: under which epoch, how many workspaces, how many flags changed, were dropped, or found no room."""

    epoch: int
    workspaces: int = 0
    flipped: int = 0
    swept: int = 0
    left_out: int = 0


class _Walked(msgspec.Struct):
    """What a walk over the flags met: how many, their highest epoch, and how many workspaces it dropped."""

    flags: int = 0
    highest: int = 0
    dropped: int = 0


def rebuild(
    conn: Connection[Any],
    client: Client,
    progress: Progress | None = None,
    *,
    only_if_cold: bool = False,
    terms: HoldTerms = _DEFAULT_TERMS,
) -> Rebuilt | None:
    """Write flag and balance of every workspace under a new epoch, drop those of unknown ones, mark the cache warm.

    Booking goes on meanwhile: the compare-and-set puts both in order. Waits for a rebuild that is under way.

    Args:
        conn: in autocommit mode.
        client: from ``connect_flags``.
        progress: called with the number of workspaces written so far.
        only_if_cold: do nothing where the cache is warm, as another rebuild may have made it while this one waited.
        terms: of the holds that are granted afterwards.

    Returns:
        What was done; None where nothing had to be.

    Raises:
        redis.RedisError, OSError, FlagsUnavailableError: Redis failed; the cache stays cold until the next attempt.
    """
    with locks.hold(conn, AdvisoryLock.FLAG_REBUILD):
        mark, server = marks.read_ready(client), server_state(client)
        epoch = flag_debts.epoch(conn)
        if only_if_cold:
            if marks.why_cold(mark, server, epoch) is None:
                return None
            marks.forget_ready(client)
        since = marks.holds_from(client, mark, server, terms, first=epoch == flag_debts.FIRST_EPOCH)
        # Above every epoch that Redis has seen, too: the database may have been restored to before the last one.
        before = _walk(client)
        done = Rebuilt(epoch=flag_debts.next_epoch(conn, above=before.highest))
        failpoints.hit("after_new_epoch")
        for workspaces, written in _write_all(conn, client):
            # What is refused was booked meanwhile under the same epoch, by a worker that wrote it first.
            done.flipped += written.flipped
            done.workspaces += workspaces
            done.left_out += written.left_out
            if progress is not None:
                progress(done.workspaces)
        if before.flags:
            # Where there was none, all that came since came from the database as it is now.
            done.swept = _walk(client, done.epoch).dropped
        failpoints.hit("before_ready")
        # The run is the one from before the first write: a server that restarted meanwhile is not taken for filled.
        flags = done.workspaces - done.left_out
        marks.note_ready(client, marks.ReadyMark(done.epoch, flags, server.run, since).under(terms))
    log.info("flags_rebuilt", epoch=done.epoch, workspaces=done.workspaces, swept=done.swept)
    return done


def _write_all(conn: Connection[Any], client: Client) -> Iterator[tuple[int, Written]]:
    """Write every workspace's state; yields, for each chunk, how many it had and what became of them."""
    in_flight: deque[tuple[int, Future[Written]]] = deque()
    with ThreadPoolExecutor(CHUNKS_IN_FLIGHT) as pool:
        for states in flag_debts.all_states(conn, CHUNK_WORKSPACES):
            if len(in_flight) == CHUNKS_IN_FLIGHT:
                workspaces, future = in_flight.popleft()
                yield workspaces, future.result()
            in_flight.append((len(states), pool.submit(_write_chunk, client, states)))
        for workspaces, future in in_flight:
            yield workspaces, future.result()


def _write_chunk(client: Client, states: Sequence[WorkspaceState]) -> Written:
    return write_states(client, states, sparse=server_state(client).nearly_full)


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
        epochs = map(marks.count, pipeline.execute(raise_on_error=False))
        for workspace_id, of_balance, of_flag in zip(page, epochs, epochs, strict=True):
            stored = max(of_balance, of_flag)
            walked.flags += 1
            walked.highest = max(walked.highest, stored)
            if floor is not None and stored < floor:
                both = [names.flag_key(workspace_id), names.balance_key(workspace_id)]
                walked.dropped += run_script(client, _SWEEP_LUA, both, [floor])
    return walked
