"""`taximeter prices reprice` and `simulate`: booked usages under the present book, or under another."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import typer

from taximeter_cli import console, session
from taximeter_cli.commands.prices.sources import read_source
from taximeter_db.money import format_usd
from taximeter_db.prices.store import PriceError
from taximeter_worker.pricing.compare import book_of
from taximeter_worker.pricing.loading import load_book
from taximeter_worker.pricing.price_file import parse_time
from taximeter_worker.tasks.recost import CLOCKS_APART, Change, Selection, Simulated, booked_since
from taximeter_worker.tasks.recost import preview as changes
from taximeter_worker.tasks.recost import simulate as simulated
from taximeter_worker.tasks.reprice import Repricing, wait_until_in_use
from taximeter_worker.tasks.reprice import post as post_adjustments


def selection(since: str, until: str | None, tool: str | None, workspace: str | None) -> Selection:
    """The usages that the words describe; a malformed time is a usage error."""
    try:
        ahead = max(CLOCKS_APART, dt.timedelta(seconds=session.future_seconds_max()))
        return Selection(parse_time(since), None if until is None else parse_time(until), tool, workspace, ahead)
    except PriceError as error:
        raise typer.BadParameter(str(error)) from error


def preview(chosen: Selection, limit: int, data_dir: Path | None, json: bool) -> None:
    """Show what repricing would do."""
    with session.database(data_dir) as conn, console.bar("workspaces", None, quiet=json) as bar:
        book = load_book(conn)
        listed = list(changes(conn, chosen, book, bar.at))
    if json:
        console.emit(
            {"posted": False, "revision": book.revision, **_total(listed), "workspaces": [*map(_object, listed)]}
        )
        return
    _table(listed, limit)
    if any(change.usages for change in listed):
        console.say('Nothing was posted. Post it: the same command with --post --reason "…"')


def post(chosen: Selection, reason: str, limit: int, data_dir: Path | None, json: bool) -> None:
    """Post the adjustments."""
    known = session.settings(data_dir)
    with session.booking(known) as conn, console.bar("workspaces", None, quiet=json) as bar:
        book = load_book(conn)
        in_use_since = wait_until_in_use(conn, book)
        done = list(
            post_adjustments(
                conn,
                Repricing(chosen, reason, session.person()),
                book,
                publish=lambda states: session.write_flags(known, conn, states),
                progress=bar.at,
            )
        )
        late = booked_since(conn, chosen, book.revision, in_use_since)
    listed = [posted.change for posted in done]
    if json:
        rows = [{**_object(posted.change), "payment_id": posted.payment_id} for posted in done]
        run = done[0].repricing if done else None
        total = {"posted": True, "repricing": run, "revision": book.revision, "late": late, **_total(listed)}
        console.emit({**total, "workspaces": rows})
        return
    _table(listed, limit, posted=True)
    if done:
        console.say(f"Posted as repricing {done[0].repricing}; in SQL: taximeter.repricing_log and repriced_usages.")
    if late:
        console.note(
            f"{console.counted(late, 'usage')} of the selection were booked meanwhile under an older revision and may be left out:"
            f" a worker does not use revision {book.revision} yet. Run this again once taximeter_price_book_revision is"
            f" {book.revision} for every worker."
        )


def _table(listed: Sequence[Change], limit: int, *, posted: bool = False) -> None:
    changed = [change for change in listed if change.usages]
    total = _total(listed)
    if not changed:
        console.say("Nothing to adjust: every usage costs what the present book says.")
    else:
        columns = ["Workspace", "Usages", "Cost so far", "Cost now", "Adjustment"]
        columns += [] if posted else ["Status after", "Would have differed"]
        console.table(columns, (_row(change, posted) for change in changed[:limit]), right=["Usages", *columns[2:5]])
        if len(changed) > limit:
            console.say(f"{len(changed) - limit:,} more workspaces: all of them with --json.")
        console.say(
            f"{console.counted(total['usages'], 'usage')} of {console.counted(len(changed), 'workspace')}:"
            f" {total['old']} → {total['new']} USD, adjustments {total['difference']} USD."
        )
        if not posted:
            console.say(f"{total['flips']:,} flags flip; {total['would_have_differed']:,} would have differed before.")
    if total["unpriced"]:
        console.say(f"{total['unpriced']:,} usages have no price in the present book and stay as they are.")


def _row(change: Change, posted: bool) -> list[object]:
    row: list[object] = [
        change.workspace_id,
        f"{change.usages:,}",
        format_usd(change.old),
        format_usd(change.new),
        format_usd(change.difference),
    ]
    if posted:
        return row
    status = (
        change.status_then if change.status_then == change.status_now else f"{change.status_now} → {change.status_then}"
    )
    apart = ""
    if change.apart_since is not None:
        instead = "disabled" if change.was_enabled else "enabled"
        apart = f"{instead} from {console.moment(change.apart_since)}, {change.apart:,} entries"
    return [*row, status, apart]


def _total(listed: Sequence[Change]) -> dict[str, Any]:
    old, new = sum(change.old for change in listed), sum(change.new for change in listed)
    return {
        "usages": sum(change.usages for change in listed),
        "unpriced": sum(change.unpriced for change in listed),
        "old": format_usd(old),
        "new": format_usd(new),
        "difference": format_usd(old - new),
        "flips": sum(change.flips for change in listed),
        "would_have_differed": sum(change.apart > 0 for change in listed),
    }


def _object(change: Change) -> dict[str, Any]:
    return {
        "workspace": change.workspace_id,
        "usages": change.usages,
        "unpriced": change.unpriced,
        "old": format_usd(change.old),
        "new": format_usd(change.new),
        "difference": format_usd(change.difference),
        "status_now": change.status_now,
        "status_then": change.status_then,
        "flips": change.flips,
        "would_have_differed": change.apart,
        "would_have_differed_since": change.apart_since,
        "was_enabled": change.was_enabled if change.apart else None,
    }


def simulate(source: str, chosen: Selection, limit: int, data_dir: Path | None, json: bool) -> None:
    """Show what the usages would have cost under another book."""
    other = read_source(source, data_dir)
    book = book_of(other.prices, other.aliases)
    with session.database(data_dir) as conn, console.bar("workspaces", None, quiet=json) as bar:
        simulations = list(simulated(conn, chosen, book, bar.at))
    tools = [
        _sum(tool, (line for line in simulations if line.tool == tool))
        for tool in sorted({line.tool for line in simulations})
    ]
    total = _sum("all tools", simulations)
    if json:
        lines = [_line(line) for line in simulations]
        by_tool = [_line(line) for line in tools]
        console.emit({"book": other.name, "total": _line(total), "tools": by_tool, "workspaces": lines})
        return
    if not simulations:
        console.say("There are no usages in that time.")
        return
    columns = ("Workspace", "Tool", "Usages", "Cost", "Would cost", "Difference", "Without price")
    shown = [*simulations[:limit], *tools, total]
    rows = ([line.workspace_id, line.tool, f"{line.usages:,}", *_amounts(line), line.unpriced or ""] for line in shown)
    console.table(columns, rows, right=columns[2:])
    if len(simulations) > limit:
        console.say(f"{len(simulations) - limit:,} more rows: all of them with --json.")
    if total.unpriced:
        console.say(f"{total.unpriced:,} usages have no price in {other.name}; they are left out of both sums.")


def _sum(name: str, lines: Iterable[Simulated]) -> Simulated:
    total = Simulated("all workspaces", name)
    for line in lines:
        for field in ("usages", "unpriced", "old", "new"):
            setattr(total, field, getattr(total, field) + getattr(line, field))
    return total


def _amounts(line: Simulated) -> list[str]:
    return [format_usd(line.old), format_usd(line.new), format_usd(line.new - line.old)]


def _line(line: Simulated) -> dict[str, Any]:
    old, new, difference = _amounts(line)
    return {
        "workspace": line.workspace_id,
        "tool": line.tool,
        "usages": line.usages,
        "unpriced": line.unpriced,
        "old": old,
        "new": new,
        "difference": difference,
    }
