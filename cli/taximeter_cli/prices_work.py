"""What `taximeter prices list | import | export` do; apart, so that the other commands need not load it."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path

from taximeter_cli import console, session
from taximeter_cli.prices_output import entry_rows, show_plan
from taximeter_cli.prices_sources import read_catalogue_file, read_source
from taximeter_db.prices import Entry, Price, Target, read_aliases
from taximeter_db.prices_change import import_prices, in_force
from taximeter_worker.pricing import load_book
from taximeter_worker.pricing.book_file import price_object, write_book

COLUMNS = ("Tool", "Provider", "Model", "Workspace", "Unit", "Price in USD", "Since", "Revision", "Source")

Names = tuple[str | None, str | None, str | None]
"""Tool, provider, model."""


def list_prices(names: Names, unit: str | None, history: bool, limit: int, data_dir: Path | None, json: bool) -> None:
    """Show prices in force and to come, or all of them; None matches anything."""
    with session.database(data_dir) as conn:
        book = load_book(conn)
    now = dt.datetime.now(dt.UTC)
    versions: dict[tuple[Target, str], list[Entry]] = {}
    for entry in book.entries():
        asked = zip((*names, unit), (*entry.target[:3], entry.unit), strict=True)
        if all(wanted is None or wanted == found for wanted, found in asked):
            versions.setdefault((entry.target, entry.unit), []).append(entry)
    shown: list[Entry] = []
    for entries in versions.values():
        present = in_force(entries, now)
        shown += [entry for entry in entries if history or present is None or not _before(entry, present)]
    if json:
        prices = [{**price_object(entry), "entry": entry.id, "revision": entry.revision} for entry in shown]
        console.emit({"revision": book.revision, "prices": prices})
        return
    if not shown:
        console.say(
            "No prices match." if book.revision else "The price book is empty. Fill it: taximeter prices import"
        )
        return
    console.table(COLUMNS, entry_rows(shown[:limit]), right=["Revision"])
    if len(shown) > limit:
        console.say(f"{len(shown) - limit:,} more: narrow by --tool, --provider, --model or --unit, or raise --limit.")


def _before(entry: Price, other: Price) -> bool:
    if other.effective_from is None:
        return False
    return entry.effective_from is None or entry.effective_from < other.effective_from


def import_book(
    source: str,
    file: Path | None,
    dry_run: bool,
    backdated: bool,
    correct: bool,
    data_dir: Path | None,
    json: bool,
) -> bool:
    """Import a catalogue or a price file; False if a part of the file was refused."""
    found = read_catalogue_file(file) if file is not None else read_source(source)
    with session.database(data_dir) as conn:
        plan = import_prices(
            conn,
            found.prices,
            found.aliases,
            reason=f"import {found.name}",
            catalogue=found.catalogue,
            backdated=backdated,
            correct=correct,
            dry_run=dry_run,
        )
    blocked = found.catalogue is None and bool(plan.refused)
    show_plan(plan, found.notes, dry_run=dry_run, blocked=blocked, json=json)
    return not blocked


def export(file: Path | None, data_dir: Path | None, json: bool) -> None:
    """Write the whole book to a file or to stdout."""
    with session.database(data_dir) as conn:
        book = load_book(conn)
        entries = [*book.entries()]
        text = write_book(entries, read_aliases(conn, book.revision))
    if file is None:
        sys.stdout.write(text)
        return
    file.write_text(text, encoding="utf-8")
    if json:
        console.emit({"file": str(file), "revision": book.revision, "prices": len(entries)})
        return
    console.note(f"Wrote revision {book.revision} of the price book to {file}.")
