"""Where prices come from: the installed catalogue, litellm's JSON, a file of `prices export`, the book itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from taximeter_cli import session
from taximeter_cli.errors import UsageError
from taximeter_db.prices.store import Price, read_aliases
from taximeter_worker.pricing.errors import BookFileError
from taximeter_worker.pricing.loading import load_book, stored_entries
from taximeter_worker.pricing.price_file import FORMAT, read_book

FILE_BYTES_MAX = 64 * 1024 * 1024
BOOK, GENAI, LITELLM = "book", "genai-prices", "litellm"


class Source(msgspec.Struct):
    """Prices with their alias rules. `catalogue` names the catalogue, None for an operator's own file."""

    name: str
    prices: list[Price]
    aliases: dict[str, Any]
    notes: list[str] = []
    catalogue: str | None = None


def read_source(name: str, data_dir: Path | None = None) -> Source:
    """Read ``genai-prices``, ``book``, or a file, which is recognised by what is in it.

    Raises:
        UsageError: There is no such file.
        BookFileError: It is neither kind of file.
    """
    if name == GENAI:
        from taximeter_worker.pricing.genai_catalogue import read_catalogue

        catalogue = read_catalogue()
        return Source(catalogue.source, catalogue.prices, {GENAI: catalogue.aliases}, catalogue.notes, GENAI)
    if name == BOOK and not Path(name).exists():
        with session.database(data_dir) as conn:
            book = load_book(conn)
            return Source(
                f"the book's revision {book.revision}", [*stored_entries(book)], read_aliases(conn, book.revision)
            )
    path = Path(name)
    text = _read(path)
    if FORMAT.encode() not in text[:200] and b"litellm_provider" in text:
        return read_catalogue_file(path)
    prices, aliases = read_book(text)
    return Source(path.name, prices, aliases)


def read_catalogue_file(path: Path) -> Source:
    """Read litellm's published JSON."""
    from taximeter_worker.pricing.litellm_catalogue import read_catalogue

    catalogue = read_catalogue(_read(path), path.name)
    return Source(catalogue.source, catalogue.prices, {LITELLM: catalogue.aliases}, catalogue.notes, LITELLM)


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise UsageError(f"there is no file {path}. Give {GENAI}, or a file that `taximeter prices export` wrote.")
    if path.stat().st_size > FILE_BYTES_MAX:
        raise BookFileError(f"{path} is larger than {FILE_BYTES_MAX // 1024 // 1024} MiB: that is not a price file.")
    return path.read_bytes()
