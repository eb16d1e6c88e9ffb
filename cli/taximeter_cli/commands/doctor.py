"""`taximeter doctor`: checks what a running system depends on, and says how to fix what is wrong."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from taximeter_cli import addresses, console
from taximeter_cli.options import DataDir, Json

if TYPE_CHECKING:
    from taximeter_cli.doctor.report import Check

GATEWAY_URL = "TAXIMETER_GATEWAY_URL"
_DATABASE = "Check TAXIMETER_DATABASE_URL, its user, and that PostgreSQL runs."
_REDIS = "Check TAXIMETER_REDIS_URL, its user's rights (deploy/valkey/users.in.acl), and that the server runs."
_BROKER = "Check TAXIMETER_BROKER_URL, its user's rights, and that the broker runs."


def doctor(data_dir: DataDir = None, json: Json = False) -> None:
    """Check everything that a running system depends on; exit code 1 where something is wrong. Changes nothing.

    Connections, versions, schema, roles, durability, clocks, partitions, queues and their consumers, quarantine, spool,
    the gateway where TAXIMETER_GATEWAY_URL names one, flags against the database, and the age of the prices. Run it as the database's owner.
    """
    checks = list(_checks(data_dir))
    ok = all(check.ok for check in checks)
    if json:
        console.emit({"ok": ok, "checks": checks})
    else:
        rows = [["ok" if check.ok else "WRONG", check.name, check.detail] for check in checks]
        console.table(("", "Check", "Found"), rows)
        for check in checks:
            if not check.ok:
                console.say(f"{check.name}: {check.advice}")
        wrong = sum(not check.ok for check in checks)
        console.say("Everything is well." if ok else f"{console.counted(wrong, 'check')} of {len(checks)} failed.")
    if not ok:
        raise typer.Exit(1)


def _checks(data_dir: Path | None) -> Iterator[Check]:
    from taximeter_cli.doctor import broker, local
    from taximeter_cli.doctor.report import guarded
    from taximeter_cli.embedded import state as states
    from taximeter_worker.settings import Settings

    yield from guarded("settings", local.settings, "See docs/settings.md.")
    known = addresses.find(data_dir, addresses.DATABASE, addresses.BROKER, addresses.REDIS)
    key = addresses.master_key(states.data_folder(data_dir), os.environ)
    settings = Settings.from_env({**os.environ, **known, **key})
    yield from _ledger(settings.database_url, settings.flags_redis_url)
    yield from guarded("broker", lambda: broker.look(settings), _BROKER)
    yield from guarded("spool", local.spool, "See that this user may read the spool.")
    state = None if addresses.given() else states.read(states.data_folder(data_dir))
    url = os.environ.get(GATEWAY_URL) or (state.addresses.get(GATEWAY_URL) if state is not None else None)
    yield from guarded("gateway", lambda: local.gateway(url), "Check TAXIMETER_GATEWAY_URL.")


def _ledger(database_url: str, redis_url: str) -> Iterator[Check]:
    """Database and flags, which are compared with one another."""
    from taximeter_cli.doctor import database, flags
    from taximeter_cli.doctor.report import guarded, opened
    from taximeter_db.connect import MIGRATIONS, connect
    from taximeter_worker.flags.connecting import connect_flags

    conn, check = opened("postgresql", lambda: connect(database_url, profile=MIGRATIONS), _DATABASE)
    yield check
    client, check = opened("redis", lambda: connect_flags(redis_url), _REDIS)
    yield check
    with contextlib.ExitStack() as stack:
        for connection in (conn, client):
            if connection is not None:
                stack.callback(connection.close)
        if conn is not None:
            for look in database.LOOKS:
                yield from guarded(look.__name__.replace("_", " "), functools.partial(look, conn), _DATABASE)
        if client is not None:
            yield from guarded("redis durability", functools.partial(flags.persistence, "redis", client), _REDIS)
        if conn is not None and client is not None:
            yield from guarded("flags complete", functools.partial(flags.warmth, conn, client), _REDIS)
            yield from guarded("flags agree", functools.partial(flags.agreement, conn, client), _REDIS)
