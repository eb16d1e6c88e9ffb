"""Making the flag cache anew from PostgreSQL: after a flush, a restart without data, or a restored database."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import structlog
from psycopg import Connection

from taximeter import names
from taximeter_db import flags_state
from taximeter_worker import failpoints
from taximeter_worker.flags import Client, read_lua, run_script, write_states

log = structlog.get_logger(__name__)

CHUNK_WORKSPACES = 1000
_SWEEP_LUA = read_lua("sweep.lua")

Progress = Callable[[int], None]


class Rebuilt(msgspec.Struct):
    """What a rebuild did: under which epoch, how many workspaces, how many flags changed or were dropped."""

    epoch: int
    workspaces: int = 0
    flipped: int = 0
    swept: int = 0


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
        seen = max((stored for _, stored in _stored_epochs(client)), default=0)
        done = Rebuilt(epoch=flags_state.next_epoch(conn, above=seen))
        failpoints.hit("after_new_epoch")
        for states in flags_state.all_states(conn, CHUNK_WORKSPACES):
            # What is refused was booked meanwhile under the same epoch, by a worker that wrote it first.
            done.flipped += write_states(client, states).flipped
            done.workspaces += len(states)
            if progress is not None:
                progress(done.workspaces)
        for workspace_id, stored in _stored_epochs(client):
            if stored < done.epoch:
                keys = [names.flag_key(workspace_id), names.balance_key(workspace_id)]
                done.swept += run_script(client, _SWEEP_LUA, keys, [done.epoch])
        failpoints.hit("before_ready")
        client.set(names.FLAGS_READY, str(done.epoch))
    log.info("flags_rebuilt", epoch=done.epoch, workspaces=done.workspaces, swept=done.swept)
    return done


def _stored_epochs(client: Client) -> Iterator[tuple[str, int]]:
    """Every workspace that has a flag, with the epoch of its balance (0 where there is none)."""
    keys = client.scan_iter(match=names.FLAG_PREFIX + "{*", count=CHUNK_WORKSPACES)
    while page := [key.removeprefix(names.FLAG_PREFIX)[1:-1] for key in itertools.islice(keys, CHUNK_WORKSPACES)]:
        pipeline = client.pipeline(transaction=False)
        for workspace_id in page:
            pipeline.hget(names.balance_key(workspace_id), "epoch")
        for workspace_id, stored in zip(page, pipeline.execute(), strict=True):
            yield workspace_id, int(stored or 0)
