"""What commands that touch the ledger share: settings, connections, and flags after a change."""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import redis
import structlog
from psycopg import Connection

from taximeter_cli import addresses
from taximeter_cli.console import note
from taximeter_cli.embedded import state as states
from taximeter_db import flags_state, master_keys
from taximeter_db.connect import booking_connection, connection
from taximeter_db.errors import MasterKeyError
from taximeter_db.events import Policy, WorkspaceState
from taximeter_db.master_keys import MasterKeys
from taximeter_worker.errors import FlagsUnavailable
from taximeter_worker.flags import connect_flags, write_states
from taximeter_worker.settings import Settings

# what the worker's functions log is for a worker's log: here the command itself says what it did
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


def settings(data_dir: Path | None) -> Settings:
    """The worker's settings, with database and Redis of the embedded instance where the environment names no servers."""
    found = addresses.find(data_dir, addresses.DATABASE, addresses.REDIS)
    key = addresses.master_key(states.data_folder(data_dir), os.environ)
    return Settings.from_env({**os.environ, **found, **key}, without=["broker_url"])


def new_workspaces() -> Policy:
    """What a new workspace gets, by the settings in the environment."""
    from taximeter_worker.booker import policy_of

    return policy_of(Settings.from_env(without=["database_url", "broker_url", "redis_url"]))


def masters(data_dir: Path | None) -> MasterKeys:
    """The master keys.

    Raises:
        MasterKeyError: There is none, or what is given is none.
    """
    found = master_keys.from_env({**os.environ, **addresses.master_key(states.data_folder(data_dir), os.environ)})
    if found is None:
        raise MasterKeyError(
            f"There is no master key. Set {master_keys.VARIABLE} or {master_keys.FILE_VARIABLE}; `taximeter keys new`"
            " makes one."
        )
    return found


@contextlib.contextmanager
def database(data_dir: Path | None) -> Iterator[Connection[Any]]:
    """A plain connection to the database."""
    with connection(addresses.find(data_dir, addresses.DATABASE)[addresses.DATABASE]) as conn:
        yield conn


@contextlib.contextmanager
def booking(known: Settings) -> Iterator[Connection[Any]]:
    """A connection that may book."""
    with contextlib.closing(booking_connection(known.database_url)) as conn:
        yield conn


def write_flags(known: Settings, conn: Connection[Any], states: Sequence[WorkspaceState]) -> bool:
    """Write the flags of changed workspaces; when Redis does not take them, leave them to a worker and say so."""
    try:
        with contextlib.closing(connect_flags(known.flags_redis_url, known.redis_timeout_seconds)) as client:
            write_states(client, states)
    except (redis.RedisError, OSError, FlagsUnavailable) as error:
        flags_state.note_stale(conn, [state.workspace_id for state in states])
        note(f"The change is booked, but Redis did not take the flag ({error}); a worker writes it once Redis answers.")
        return False
    return True


def person() -> str:
    """Who gives the command, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
