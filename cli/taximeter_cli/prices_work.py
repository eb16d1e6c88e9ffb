"""What `taximeter prices set | list | import | export` do; apart, so that the other commands need not load it."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path

import typer

from taximeter_cli import console, session
from taximeter_cli.errors import CliError
from taximeter_cli.prices_output import entry_rows, show_plan
from taximeter_db.prices import Entry, Price, PriceError, Target, check, parse_decimal, read_aliases
from taximeter_db.prices_change import import_prices, in_force
from taximeter_db.prices_change import set_price as store_price
from taximeter_worker.pricing import BookFileError, load_book
from taximeter_worker.pricing.book_file import parse_time, price_object, read_book, write_book

CATALOGUE = "genai-prices"
FILE_BYTES_MAX = 64 * 1024 * 1024
COLUMNS = ("Tool", "Provider", "Model", "Unit", "Price in USD", "Since", "Revision", "Source")

Names = tuple[str | None, str | None, str | None]
"""Tool, provider, model."""


def set_one(
    names: Names,
    unit: str,
    price: str,
    per: str,
    start: str | None,
    backdated: bool,
    data_dir: Path | None,
    json: bool,
) -> None:
    """Set a price and say what was done; what cannot be a price is a usage error."""
    try:
        wanted = Price(
            target=Target(*names), unit=unit, amount=parse_decimal(price, "--price"), per=parse_decimal(per, "--per")
        )
        check(wanted)
        moment = None if start is None else parse_time(start)
    except PriceError as error:
        raise typer.BadParameter(str(error)) from error
    with session.database(data_dir) as conn:
        done = store_price(conn, wanted, start=moment, backdated=backdated)
    if json:
        previous = None if done.previous is None else price_object(done.previous)
        console.emit(
            {
                "changed": done.changed,
                "price": price_object(done.price),
                "previous": previous,
                "revision": done.revision,
            }
        )
    elif not done.changed:
        console.say(f"Nothing to do: {wanted.target}, {unit} already costs {done.price}.")
    else:
        console.say(f"{wanted.target}, {unit}: {done.price}. The book is now at revision {done.revision}.")
        if done.previous is not None:
            console.say(f"Until then: {done.previous}.")


def list_prices(names: Names, unit: str | None, history: bool, limit: int, data_dir: Path | None, json: bool) -> None:
    """Show prices in force and to come, or all of them; None matches anything."""
    with session.database(data_dir) as conn:
        book = load_book(conn)
    now = dt.datetime.now(dt.UTC)
    versions: dict[tuple[Target, str], list[Entry]] = {}
    for entry in book.entries():
        asked = zip((*names, unit), (*entry.target, entry.unit), strict=True)
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


def import_book(file: Path | None, dry_run: bool, backdated: bool, data_dir: Path | None, json: bool) -> bool:
    """Import a file, or without one the installed catalogue; False if a part of the file was refused."""
    notes: list[str] = []
    if file is None:
        from taximeter_worker.pricing.genai_catalogue import read_catalogue

        catalogue = read_catalogue()
        prices, aliases, notes = catalogue.prices, {CATALOGUE: catalogue.aliases}, catalogue.notes
        reason = f"import {catalogue.source}"
    else:
        prices, aliases = read_book(_read(file))
        reason = f"import {file.name}"
    with session.database(data_dir) as conn:
        plan = import_prices(
            conn,
            prices,
            aliases,
            reason=reason,
            catalogue=CATALOGUE if file is None else None,
            backdated=backdated,
            dry_run=dry_run,
        )
    blocked = file is not None and bool(plan.refused)
    show_plan(plan, notes, dry_run=dry_run, blocked=blocked, json=json)
    return not blocked


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise CliError(f"there is no file {path}. Give {CATALOGUE}, or a file that `taximeter prices export` wrote.")
    if path.stat().st_size > FILE_BYTES_MAX:
        raise BookFileError(f"{path} is larger than {FILE_BYTES_MAX // 1024 // 1024} MiB: that is no price file.")
    return path.read_bytes()


def export(file: Path | None, data_dir: Path | None) -> None:
    """Write the whole book to a file or to stdout."""
    with session.database(data_dir) as conn:
        book = load_book(conn)
        text = write_book(book.entries(), read_aliases(conn, book.revision))
    if file is None:
        sys.stdout.write(text)
        return
    file.write_text(text, encoding="utf-8")
    console.note(f"Wrote revision {book.revision} of the price book to {file}.")
