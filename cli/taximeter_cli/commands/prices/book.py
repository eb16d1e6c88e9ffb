"""What `taximeter prices list | import | export` do; apart, so that the other commands need not load it."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path

from taximeter_cli import console, session
from taximeter_cli.commands.prices.output import entry_rows, show_plan
from taximeter_cli.commands.prices.sources import Source, read_catalogue_file, read_source
from taximeter_db.prices.changes import ImportTerms, import_prices, in_force
from taximeter_db.prices.store import Entry, Price, Target, read_aliases
from taximeter_worker.pricing.loading import load_book, stored_entries
from taximeter_worker.pricing.price_file import price_object, write_book

COLUMNS = ("Tool", "Provider", "Model", "Workspace", "Unit", "Price in USD", "Since", "Revision", "Source")

Names = tuple[str | None, str | None, str | None]
"""Tool, provider, model."""


def list_prices(names: Names, unit: str | None, history: bool, limit: int, data_dir: Path | None, json: bool) -> None:
    """Show prices in force and to come, or all of them; None matches anything."""
    with session.database(data_dir) as conn:
        book = load_book(conn)
    now = dt.datetime.now(dt.UTC)
    versions: dict[tuple[Target, str], list[Entry]] = {}
    for entry in stored_entries(book):
        asked = zip((*names, unit), (*entry.target[:3], entry.unit), strict=True)
        if all(wanted is None or wanted == value for wanted, value in asked):
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


def offered_by(source: str, file: Path | None, *, backdated: bool, correct: bool) -> tuple[Source, ImportTerms]:
    """What a catalogue or a price file offers, and on which terms."""
    offered = read_catalogue_file(file) if file is not None else read_source(source)
    terms = ImportTerms(f"import {offered.name}", offered.catalogue, backdated=backdated, correct=correct)
    return offered, terms


def import_book(offered: Source, terms: ImportTerms, dry_run: bool, data_dir: Path | None, json: bool) -> bool:
    """Import what is offered; False if a part of a file was refused."""
    with session.database(data_dir) as conn:
        plan = import_prices(conn, offered.prices, offered.aliases, terms, dry_run=dry_run)
    blocked = offered.catalogue is None and bool(plan.refused)
    show_plan(plan, offered.notes, dry_run=dry_run, blocked=blocked, json=json)
    return not blocked


def export(file: Path | None, data_dir: Path | None, json: bool) -> None:
    """Write the whole book to a file or to stdout."""
    with session.database(data_dir) as conn:
        book = load_book(conn)
        entries = stored_entries(book)
        text = write_book(entries, read_aliases(conn, book.revision))
    if file is None:
        sys.stdout.write(text)
        return
    file.write_text(text, encoding="utf-8")
    if json:
        console.emit({"file": str(file), "revision": book.revision, "prices": len(entries)})
        return
    console.note(f"Wrote revision {book.revision} of the price book to {file}.")
