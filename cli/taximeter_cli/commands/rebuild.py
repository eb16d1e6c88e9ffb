"""`taximeter rebuild`: every balance, status and flag of a moment, made again from the log and compared."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from taximeter_cli import console
from taximeter_cli.errors import UsageError
from taximeter_cli.options import DataDir, Json
from taximeter_db.money import format_usd

if TYPE_CHECKING:
    from taximeter_db.audit.rebuild import Rebuilt

NOW = "now"


def rebuild(
    as_of: Annotated[
        str,
        typer.Option(
            "--as-of",
            metavar="TIME",
            help="What was booked until then counts: 2026-12-01T12:00:00Z, 2026-12-01 (midnight UTC), or now, which is also"
            " compared with the live tables.",
        ),
    ] = NOW,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="SCHEMA", help="Keep what was made, in a schema of this name. Else nothing is left of it."
        ),
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Make every balance, status and flag of a moment from the log, compare; exit code 1 when something does not agree."""
    from taximeter_cli import session
    from taximeter_db.audit import rebuild as audit

    moment = _moment(as_of)
    with session.database(data_dir) as conn, console.bar("blocks", None, quiet=json) as bar:
        rebuilt = audit.rebuild(conn, moment, keep=keep, progress=bar.at)
    _tell(rebuilt, json)
    if not rebuilt.ok:
        raise typer.Exit(1)


def _moment(given: str) -> dt.datetime | None:
    from taximeter_db.prices.terms import PriceError
    from taximeter_worker.pricing.price_file import parse_time

    try:
        return None if given == NOW else parse_time(given)
    except PriceError as error:
        raise UsageError(f"--as-of: {error}") from error


def _tell(rebuilt: Rebuilt, json: bool) -> None:
    if json:
        document = {"ok": rebuilt.ok, **msgspec.structs.asdict(rebuilt), "balance": format_usd(rebuilt.balance)}
        console.emit(document)
        return
    for one in rebuilt.differences:
        console.say(f"WRONG  {one.sentence}")
    verdict = "Everything agrees" if rebuilt.ok else console.counted(len(rebuilt.differences), "difference")
    console.say(
        f"{verdict} as of {rebuilt.as_of.astimezone(dt.UTC).isoformat().replace('+00:00', 'Z')}:"
        f" {console.counted(rebuilt.workspaces, 'workspace')}, {console.counted(rebuilt.usages, 'usage')},"
        f" {console.counted(rebuilt.payments, 'payment')}, together {format_usd(rebuilt.balance)} USD."
    )
    if rebuilt.statuses:
        counts = ", ".join(f"{count:,} {status}" for status, count in rebuilt.statuses.items())
        console.say(f"Status: {counts}.")
    if rebuilt.schema:
        console.say(f"Kept in {rebuilt.schema}.balances and {rebuilt.schema}.differences.")
