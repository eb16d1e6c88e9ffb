"""`taximeter prices missing`: what waits for a price."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path

import msgspec

from taximeter_cli import console, session
from taximeter_db import quarantine
from taximeter_worker.decode.message import decode_message
from taximeter_worker.decode.result import Limits
from taximeter_worker.pricing.loading import load_book

CHUNK_ENTRIES = 500


class Missing(msgspec.Struct):
    """Events that wait because nothing prices one of their units. `workspaces` are counted, not named."""

    tool: str
    provider: str | None
    model: str | None
    unit: str
    events: int
    since: dt.datetime
    workspaces: int


def show(data_dir: Path | None, json: bool) -> None:
    """Show them, most events first; those that have a price by now are booked by a worker within a minute."""
    found: dict[tuple[str, str | None, str | None, str], Missing] = {}
    who: dict[tuple[str, str | None, str | None, str], set[str]] = {}
    waiting = ready = 0
    now = time.time_ns() // 1000
    with session.database(data_dir) as conn:
        book = load_book(conn)
        for entries in quarantine.pages(conn, reason="price_missing"):
            for entry in entries:
                waiting += 1
                usages = decode_message(entry.event, entry.content_type, now=now, limits=Limits()).usages
                units = [
                    ((u.tool, u.provider, u.model, unit), u.workspace_id)
                    for u in usages
                    for unit in book.missing_units(u.tool, u.provider, u.model, u.quantities, u.occurred_at)
                ]
                ready += not units
                for key, workspace in units:
                    line = found.setdefault(key, Missing(*key, 0, entry.received_at, 0))
                    line.events += 1
                    who.setdefault(key, set()).add(workspace)
                    line.workspaces = len(who[key])
    lines = sorted(found.values(), key=lambda line: (-line.events, line.tool, line.unit))
    if json:
        console.emit({"waiting": waiting, "priced_by_now": ready, "missing": lines})
        return
    if not waiting:
        console.say("Nothing waits for a price.")
        return
    if lines:
        console.table(
            ("Tool", "Provider", "Model", "Unit", "Events", "Workspaces", "Since"),
            ([*list(msgspec.structs.astuple(line)[:5]), line.workspaces, console.moment(line.since)] for line in lines),
            right=["Events", "Workspaces"],
        )
        console.say("Set a price: taximeter prices set … --unit U --price A, or say taximeter prices policy --tool T …")
    if ready:
        console.say(f"{ready:,} of {waiting:,} events have a price by now: a worker books them within a minute.")
