"""`taximeter verify` and `checkpoint`: does the log still say what was booked?"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taximeter_cli import console
from taximeter_cli.errors import UsageError
from taximeter_cli.options import DataDir, Json
from taximeter_cli.settings import Settings
from taximeter_db.errors import ConfigurationError

if TYPE_CHECKING:
    from taximeter_db.audit.verify import Report

CONNECTIONS_MAX = 4
"""Connections that verify keeps busy, at most: it should leave something to those who book."""
KEY = "TAXIMETER_CHECKPOINT_KEY"


def verify(
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A checkpoint that the log must still contain.", exists=True, dir_okay=False),
    ] = None,
    since: Annotated[
        bool, typer.Option("--since-checkpoint", metavar="", help="Recompute only what was booked after it.")
    ] = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Recompute every balance, number and hash chain from the log and compare; exit code 1 when something does not agree."""
    from taximeter_cli import session
    from taximeter_db.audit import verify as audit
    from taximeter_db.audit.checkpoint import read

    if since and checkpoint is None:
        raise UsageError("--since-checkpoint needs --checkpoint FILE.")
    known = None if checkpoint is None else read(checkpoint.read_bytes().splitlines(keepends=True), _key())
    with contextlib.ExitStack() as stack:
        count = min(CONNECTIONS_MAX, os.cpu_count() or 1)
        conns = [stack.enter_context(session.database(data_dir)) for _ in range(count)]
        bar = stack.enter_context(console.bar("entries", None, quiet=json))

        def progress(so_far: Report) -> None:
            bar.at(so_far.usages + so_far.payments, so_far.entries_all)

        report = audit.verify(conns[0], progress, helpers=conns[1:], checkpoint=known, since=since)
    _tell(report, json)
    if not report.ok:
        raise typer.Exit(1)


def _tell(report: Report, json: bool) -> None:
    if json:
        counts = {"workspaces": report.workspaces, "usages": report.usages, "payments": report.payments}
        console.emit({"ok": report.ok, **counts, "faults": report.faults})
        return
    for fault in report.faults:
        console.say(f"WRONG  {fault.sentence}")
    verdict = "Everything agrees" if report.ok else console.counted(len(report.faults), "fault")
    console.say(
        f"{verdict}: {console.counted(report.workspaces, 'workspace')}, {console.counted(report.usages, 'usage')},"
        f" {console.counted(report.payments, 'payment')}."
    )


def checkpoint(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it; keep it on another machine.")],
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Write down, signed, where every workspace's log stands now; `verify --checkpoint` then finds a rewritten log.

    The key that signs is in TAXIMETER_CHECKPOINT_KEY, or in the file that TAXIMETER_CHECKPOINT_KEY_FILE names.
    """
    from taximeter_cli import session
    from taximeter_db.audit.checkpoint import make

    if not file.name or file.is_dir():
        raise UsageError(f"{str(file)!r} is a directory: name a file.")
    key = _key()
    draft = file.with_name(f"{file.name}.part")
    with session.database(data_dir) as conn:
        lines = 0
        try:
            with draft.open("wb") as output:
                for line in make(conn, key):
                    output.write(line)
                    lines += 1
                output.flush()
                os.fsync(output.fileno())
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)
    workspaces = lines - 2
    if json:
        console.emit({"file": str(file), "workspaces": workspaces})
    else:
        console.say(
            f"Wrote {file}: {console.counted(workspaces, 'workspace')}. Keep it where the database's owner cannot write."
        )


def _key() -> bytes:
    """The key that signs checkpoints."""
    settings = Settings.from_env()
    key = settings.checkpoint_key.encode()
    if settings.checkpoint_key_file:
        try:
            key = Path(settings.checkpoint_key_file).read_bytes().strip()
        except OSError as error:
            raise ConfigurationError(f"{KEY}_FILE names a file that cannot be read: {error.strerror}.") from error
    if not key:
        raise ConfigurationError(
            f"{KEY} is not set. Set it, or {KEY}_FILE, to a secret of your own that is kept outside of the database,"
            " such as the output of `openssl rand -base64 32`."
        )
    return key
