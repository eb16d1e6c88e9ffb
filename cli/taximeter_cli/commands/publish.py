"""`taximeter publish`: events from a file, through the SDK, as a tool would send them."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taximeter_cli import addresses, console, event_files
from taximeter_cli.errors import CliError, UsageError
from taximeter_cli.options import DataDir, Json, workspace_id

if TYPE_CHECKING:
    from taximeter import Meter

SPOOLED_EVENTS_MAX = 50_000
"""Read no further ahead of the broker than this."""
CONFIRM_SECONDS_MAX = 30.0
"""How long the broker may confirm nothing at all before we give up."""
_PROBLEMS_SHOWN_MAX = 20
_STEP_SECONDS = 0.2
_AGAIN = "When this is fixed, run the same command again: an event that was published is known by its id and not charged twice."


def publish(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="NDJSON of events, or CSV; - reads stdin.")],
    workspace: Annotated[
        str | None, typer.Option(metavar="ID", help="CSV: whose usage all rows are.", callback=workspace_id)
    ] = None,
    workspaces: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="CSV: whose usage it is: row i (from 0) is of workspace ws-(i mod N)."),
    ] = None,
    tool: Annotated[str | None, typer.Option(metavar="T", help="CSV: the tool that consumed it.")] = None,
    provider: Annotated[str | None, typer.Option(metavar="P", help="CSV: the model's provider.")] = None,
    model: Annotated[str | None, typer.Option(metavar="M", help="CSV: the model.")] = None,
    column: Annotated[
        list[str] | None, typer.Option("--map", metavar="COLUMN=UNIT", help="CSV: what a column counts; repeat it.")
    ] = None,
    user_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="CSV: which user of the workspace it was; may be empty.")
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="TAG=COLUMN", help="CSV: which column holds a tag; repeat it. May be empty."),
    ] = None,
    time_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="CSV: when it happened; UTC where no offset is given.")
    ] = None,
    start_time: Annotated[
        str | None, typer.Option(metavar="TIME", help="CSV: shift all times so that the first row is at this one.")
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Publish usage events from a file, with progress; safe to run again.

    NDJSON (.ndjson, .jsonl, .json) holds one whole event a line. A CSV (.csv) needs --map, --tool, and --workspace or
    --workspaces; the columns of the Azure LLM inference traces are recognised. Without such an ending the first line
    decides. A row that is not an event is named and left out.

    Events that were published before are counted as duplicates and cost nothing. In a CSV the ids come from the
    file's whole content: a changed file is a new one.
    """
    options = (workspace, workspaces, tool, provider, model, column, user_column, tag, time_column, start_time)
    given = any(value is not None for value in options)
    with tempfile.TemporaryDirectory(prefix="taximeter-publish-") as folder:
        source = _source(file, Path(folder))
        mapped = None
        if event_files.is_ndjson(source, mapped=given):
            if given:
                raise typer.BadParameter(
                    "these events name workspace, tool and time themselves; the options are for CSV"
                )
        else:
            if workspace is not None and workspaces is not None:
                raise typer.BadParameter("give --workspace or --workspaces, not both")
            said = event_files.Mapped(
                units=_units(column or []),
                time_column=time_column,
                tool=tool or "",
                provider=provider,
                model=model,
                workspace=workspace,
                workspaces=workspaces,
                start_time=_start_time(start_time),
                user_column=user_column,
                tags=_tags(tag or []),
            )
            mapped = event_files.mapping_for(source, said)
        broker = addresses.find(data_dir, addresses.BROKER)[addresses.BROKER]
        _publish(source.file, mapped, broker, Path(folder, "spool"), json)


def _source(file: Path, folder: Path) -> event_files.Source:
    """The file, or a copy of what can be read only once: it is read twice."""
    stdin = str(file) == "-"
    if not stdin and (not file.exists() or file.is_dir()):
        raise UsageError(f"there is no file {file}.")
    if not stdin and file.is_file():
        return event_files.Source(file, str(file))
    copy = folder / "input"
    with copy.open("wb") as target, sys.stdin.buffer if stdin else file.open("rb") as stream:
        shutil.copyfileobj(stream, target)
    return event_files.Source(copy, "stdin" if stdin else str(file))


def _publish(file: Path, mapped: event_files.Mapped | None, broker: str, spool: Path, json: bool) -> None:
    from taximeter import Meter

    problems: list[event_files.Problem] = []
    begun = time.monotonic()
    with (
        Meter.from_env(broker_url=broker, redis_url=None, spool=spool, source="/cli/publish") as meter,
        console.bar("events", event_files.count_lines(file), quiet=json) as bar,
        _nothing_kept(meter),
    ):
        events = 0
        for problem in _record_all(meter, file, mapped):
            if problem is None:
                events += 1
                if events % 1000 == 0:
                    bar.at(meter.stats().confirmed)
                    _hold_back(meter, bar)
            else:
                problems.append(problem)
        _confirm(meter, bar, below=0)
        confirmed = meter.stats().confirmed
    _report(confirmed, problems, time.monotonic() - begun, json=json, fixed_in_place=mapped is None)


@contextlib.contextmanager
def _nothing_kept(meter: Meter) -> Iterator[None]:
    """When it ends early, end at once, and say nothing of a spool that would publish the rest: it goes with us."""
    try:
        yield
    except BaseException:
        logger = logging.getLogger("taximeter")
        logger.disabled = True
        try:
            meter.close(timeout=0)
        finally:
            logger.disabled = False
        raise


def _record_all(meter: Meter, file: Path, mapped: event_files.Mapped | None) -> Iterator[event_files.Problem | None]:
    """Record every row; yields None for each event that was accepted, and each problem."""
    from taximeter import InvalidEventError, SpoolError

    rows = event_files.read_ndjson(file) if mapped is None else event_files.read_csv(file, mapped)
    for row in rows:
        try:
            if isinstance(row, event_files.Problem):
                yield row
                continue
            if isinstance(row, event_files.Line):
                meter.publish_event(row.event)
            elif mapped is not None:
                meter.record(
                    row.workspace_id,
                    tool=mapped.tool,
                    provider=mapped.provider,
                    model=mapped.model,
                    quantities=row.quantities,
                    id=row.event_id,
                    time=row.time,
                    user=row.user,
                    tags=row.tags,
                )
        except InvalidEventError as error:
            yield event_files.Problem(row.line, str(error))
        except SpoolError as error:
            raise CliError(f"{error}. {_AGAIN}") from error
        else:
            yield None


def _hold_back(meter: Meter, bar: console.Bar) -> None:
    if meter.stats().spooled_events > SPOOLED_EVENTS_MAX:
        _confirm(meter, bar, below=SPOOLED_EVENTS_MAX // 2)


def _confirm(meter: Meter, bar: console.Bar, *, below: int) -> None:
    """Wait until at most ``below`` events are unconfirmed, for as long as the broker gets on."""
    from taximeter import FlushTimeoutError

    last, since = -1, time.monotonic()
    while True:
        try:
            meter.flush(timeout=_STEP_SECONDS)
        except FlushTimeoutError:
            pass
        else:
            bar.at(meter.stats().confirmed)
            return
        stats = meter.stats()
        bar.at(stats.confirmed)
        if stats.spooled_events <= below:
            return
        if stats.confirmed != last:
            last, since = stats.confirmed, time.monotonic()
        elif time.monotonic() - since > CONFIRM_SECONDS_MAX:
            raise CliError(
                f"the broker has confirmed nothing for {CONFIRM_SECONDS_MAX:.0f} s ({stats.last_error or 'no answer'})."
                f" It confirmed {console.counted(stats.confirmed, 'event')} before; the rest is not kept. {_AGAIN}"
            )


def _report(
    confirmed: int, problems: list[event_files.Problem], seconds: float, *, json: bool, fixed_in_place: bool
) -> None:
    if json:
        listed = [{"line": problem.line, "problem": problem.sentence} for problem in problems]
        console.emit({"published": confirmed, "left_out": len(problems), "problems": listed})
    else:
        for problem in problems[:_PROBLEMS_SHOWN_MAX]:
            console.note(f"line {problem.line}: {console.clean(problem.sentence)}")
        if len(problems) > _PROBLEMS_SHOWN_MAX:
            console.note(f"... and {len(problems) - _PROBLEMS_SHOWN_MAX:,} more; --json lists all")
        console.say(f"{console.counted(confirmed, 'event')} published and confirmed by the broker in {seconds:.1f} s.")
        if problems:
            again = (
                "Correct them and publish the file again."
                if fixed_in_place
                else "Correct them in a file of their own: the ids come from the whole file, so a changed file counts as new."
            )
            console.say(f"{console.counted(len(problems), 'row was', 'rows were')} left out. {again}")
    if problems:
        raise typer.Exit(1)


def _units(pairs: list[str]) -> dict[str, str]:
    return dict(_pairs(pairs, "--map", "COLUMN=UNIT, such as tokens=input_tokens"))


def _tags(pairs: list[str]) -> dict[str, str]:
    return dict(_pairs(pairs, "--tag", "TAG=COLUMN, such as team=department"))


def _pairs(pairs: list[str], option: str, form: str) -> Iterator[tuple[str, str]]:
    for pair in pairs:
        first, equals, second = pair.rpartition("=")
        if not (first and equals and second):
            raise typer.BadParameter(f"{pair!r}: write {form}", param_hint=option)
        yield first, second


def _start_time(text: str | None) -> dt.datetime | None:
    if text is None:
        return None
    try:
        return event_files.parse_time(text, zone_needed=True)
    except ValueError:
        raise typer.BadParameter(
            f"{text[:40]!r}: write a time with an offset, such as 2026-11-22T10:00:00Z", param_hint="--start-time"
        ) from None
