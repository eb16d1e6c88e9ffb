"""What commands that touch the ledger share: settings, connections, and flags after a change."""

from __future__ import annotations

import contextlib
import getpass
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection

from taximeter.errors import TaximeterError
from taximeter_cli import addresses
from taximeter_cli.console import note
from taximeter_cli.embedded import state as states
from taximeter_cli.errors import CliError
from taximeter_db.connect import booking_connection, connection
from taximeter_db.crypto.master_keys import MasterKeys
from taximeter_db.errors import MasterKeyError
from taximeter_db.ledger.events import Policy, WorkspaceState
from taximeter_db.secret import redact
from taximeter_worker.flags.publisher import FlagPublisher
from taximeter_worker.flags.writer import NO_HOLDS, FlagWriter, Holds
from taximeter_worker.metrics import Metrics
from taximeter_worker.settings import Settings

_ADDRESSES = ("database_url", "broker_url", "redis_url")


def settings(data_dir: Path | None) -> Settings:
    """The worker's settings, with database and Redis of the embedded instance where the environment names no servers."""
    known = addresses.find(data_dir, addresses.DATABASE, addresses.REDIS)
    key = addresses.master_key(states.data_folder(data_dir), os.environ)
    return Settings.from_env({**os.environ, **known, **key}, without=["broker_url"])


def new_workspaces() -> Policy:
    """What a new workspace gets, by the settings in the environment."""
    from taximeter_worker.consume.batch import policy_of

    return policy_of(Settings.from_env(without=_ADDRESSES))


def future_seconds_max() -> int:
    """By how much an event's time may lie ahead of its booking, by the settings in the environment."""
    return Settings.from_env(without=_ADDRESSES).future_seconds_max


def masters_if_any(data_dir: Path | None) -> MasterKeys | None:
    """The master keys, if there are any.

    Raises:
        ConfigurationError: What is given is not a master key.
    """
    key = addresses.master_key(states.data_folder(data_dir), os.environ)
    return Settings.from_env({**os.environ, **key}, without=_ADDRESSES).masters


def masters(data_dir: Path | None) -> MasterKeys:
    """The master keys.

    Raises:
        MasterKeyError: There is none.
        ConfigurationError: What is given is not a master key.
    """
    known = masters_if_any(data_dir)
    if known is None:
        raise MasterKeyError(
            f"There is no master key. Set {' or '.join(addresses.MASTER_KEY_VARIABLES)}; `taximeter keys new` makes one."
        )
    return known


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


def write_flags(
    known: Settings, conn: Connection[Any], states: Sequence[WorkspaceState], holds: Holds = NO_HOLDS
) -> bool:
    """Write the flags of changed workspaces and settle holds; when Redis does not take them, say that a worker will.

    The transaction that changed them noted the debts of these flags, so whatever fails here loses nothing.
    """
    failed: Exception | None
    with contextlib.closing(FlagWriter(known.flags_redis_url, known.redis_timeout_seconds)) as writer:
        try:
            failed = FlagPublisher(writer, Metrics()).publish(conn, states, owed=True, holds=holds)
        except psycopg.Error as error:  # the change is committed: the command must not end as if it were not
            failed = error
    if failed is not None:
        reason = redact(str(failed).strip().partition("\n")[0])
        note(f"The change is booked, but Redis did not take the flag ({reason}); a worker writes it once Redis does.")
    return failed is None


def held(data_dir: Path | None, workspace_id: str) -> int | None:
    """What the open holds of a workspace hold, in picodollars; None where Redis is not known or does not answer."""
    from taximeter_cli.held import reader

    try:
        read = reader(addresses.find(data_dir, addresses.REDIS)[addresses.REDIS])
    except (CliError, TaximeterError):
        return None
    return read(workspace_id) if read is not None else None


def person() -> str:
    """Who gives the command, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
