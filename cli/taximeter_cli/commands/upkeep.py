"""`taximeter worker`, `migrate`, `flags rebuild` and `rollups rebuild`: parts and upkeep of an installation."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Annotated

import typer

from taximeter_cli import addresses, console, odd_variables
from taximeter_cli.embedded import state as states
from taximeter_cli.options import DataDir, Json, JsonLog
from taximeter_db import json_logs

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

flags = typer.Typer(no_args_is_help=True, help="The copy of every workspace's answer in Redis.")

rollups = typer.Typer(no_args_is_help=True, help="The totals that the page's charts and filters read.")


def _level(given: str) -> str:
    if given.upper() not in LEVELS:
        raise typer.BadParameter(f"{given[:40]!r} is not one of {', '.join(LEVELS)}")
    return given.upper()


def worker(
    concurrency: Annotated[int, typer.Option(min=1, help="Threads for upkeep tasks; booking has its own.")] = 2,
    loglevel: Annotated[
        str, typer.Option(metavar="LEVEL", help="DEBUG, INFO, WARNING, ERROR or CRITICAL.", callback=_level)
    ] = "INFO",
    data_dir: DataDir = None,
    json: JsonLog = False,
) -> None:
    """Run a worker: it books what the broker brings. SIGTERM lets it finish what it holds.

    Run as many as you like on one broker. Its metrics are on TAXIMETER_METRICS_PORT (default 9464).
    """
    odd_variables.tell(as_json=json)
    known = addresses.find(data_dir, addresses.DATABASE, addresses.BROKER, addresses.REDIS)
    if not addresses.given():
        known = addresses.as_part(known, "worker")
    known |= addresses.master_key(states.data_folder(data_dir), os.environ)
    if json:
        known[json_logs.VARIABLE] = json_logs.JSON
    command = [sys.executable, "-m", "taximeter_worker", f"--concurrency={concurrency}", f"--loglevel={loglevel}"]
    os.execve(command[0], command, {**os.environ, **known})  # noqa: S606 - the worker takes our place and our signals


def migrate(data_dir: DataDir = None, json: Json = False) -> None:
    """Create or upgrade the database's schema; safe to run again.

    An empty price book is filled from the installed catalogue; any other is left as it is.
    """
    from taximeter_cli import session
    from taximeter_db import migrate as migrations
    from taximeter_worker.pricing.loading import seed

    url = addresses.find(data_dir, addresses.DATABASE)[addresses.DATABASE]
    before = migrations.current(url)
    rights = migrations.upgrade(url)
    after = migrations.current(url)
    with session.database(data_dir) as conn:
        prices = seed(conn)
    if json:
        roles = {"created": rights.created, "missing": rights.missing}
        console.emit({"before": before, "after": after, "prices_added": prices, "roles": roles})
        return
    if rights.created:
        console.say(f"Created the roles {', '.join(rights.created)}; docs/security.md says how to make their logins.")
    if rights.advice:
        console.note(rights.advice)
    if prices:
        console.say(f"Filled the empty price book with {prices:,} prices of the installed catalogue.")
    if before == after:
        console.say(f"The schema is up to date ({after}).")
    else:
        console.say(f"The schema is now {after} (before: {before or 'none'}).")


@flags.command("rebuild")
def rebuild(data_dir: DataDir = None, json: Json = False) -> None:
    """Write every flag again from the database, under a new epoch; booking goes on meanwhile."""
    from taximeter_cli import session
    from taximeter_worker.consume.batch import hold_terms_of
    from taximeter_worker.flags.connecting import connect_flags
    from taximeter_worker.flags.rebuild import rebuild as rebuild_flags

    known = session.settings(data_dir)
    with (
        session.database(data_dir) as conn,
        contextlib.closing(connect_flags(known.flags_redis_url, known.redis_timeout_seconds)) as client,
        console.bar("workspaces", None, quiet=json) as bar,
    ):
        done = rebuild_flags(conn, client, bar.at, terms=hold_terms_of(known))
    if done is None:
        return
    if json:
        console.emit(done)
    else:
        console.say(
            f"Wrote {console.counted(done.workspaces, 'workspace')} under epoch {done.epoch}:"
            f" {console.counted(done.flipped, 'flag')} changed,"
            f" {done.swept:,} of unknown workspaces removed."
        )


@flags.callback()
def _group() -> None:
    """Keep `rebuild` a sub-command although it is the only one."""


@rollups.command("rebuild")
def rebuild_rollups(
    workspaces: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WORKSPACE]...", help="Of these; of all that name too many tools and models if none is given."
        ),
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Make the rollups of workspaces again from their logs; booking goes on meanwhile.

    Versions up to 0.1.0 bounded neither tools nor models in them, which makes the page slow where there are thousands.
    """
    from taximeter_cli import session
    from taximeter_db.ledger import rollups as ledger_rollups

    with session.database(data_dir) as conn:
        usages = {}
        for workspace_id in dict.fromkeys(workspaces or ledger_rollups.crowded(conn)):
            with console.bar("usages", None, quiet=json) as bar:
                usages[workspace_id] = ledger_rollups.rebuild(conn, workspace_id, bar.at)
    if json:
        console.emit({"usages": usages})
    else:
        console.say(
            f"Made the rollups of {console.counted(len(usages), 'workspace')} again, from"
            f" {console.counted(sum(usages.values()), 'usage')}."
        )


@rollups.callback()
def _rollups_group() -> None:
    """Keep `rebuild` a sub-command although it is the only one."""
