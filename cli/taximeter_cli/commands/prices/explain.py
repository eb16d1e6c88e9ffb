"""`taximeter prices explain`: the receipt of an event, of a file of events, or of a usage already booked."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from psycopg import Connection

from taximeter.errors import OutOfRangeError, PriceMissingError
from taximeter.names import CONTENT_TYPE_BATCH, CONTENT_TYPE_EVENT
from taximeter.pricing.price_book import PriceBook
from taximeter.pricing.price_index import PriceTerms, microseconds
from taximeter_cli import console, session
from taximeter_cli.commands.prices.output import show_receipt
from taximeter_cli.errors import CliError, UsageError
from taximeter_db.errors import NotFoundError
from taximeter_db.money import format_usd, to_pico
from taximeter_db.queries import usages
from taximeter_worker.decode.message import decode_message
from taximeter_worker.decode.result import Limits
from taximeter_worker.pricing.loading import load_book
from taximeter_worker.pricing.receipt import Receipt
from taximeter_worker.pricing.receipt import explain as make_receipt

ANY_TIME = Limits(future_seconds_max=10**9)
"""What an event of next year would cost may be asked."""


def explain_booked(workspace: str, event: str, data_dir: Path | None, json: bool) -> None:
    """Show the receipt of a booked usage."""
    with session.database(data_dir) as conn:
        receipt = booked_receipt(conn, workspace, event)
    _show([(event, receipt)], json=json)


def explain_events(file: str, data_dir: Path | None, json: bool) -> bool:
    """Show the receipts of the events in a file, or on stdin if it is ``-``; False if one has none."""
    events = list(_decoded(_read(file)))
    with session.database(data_dir) as conn:
        book = load_book(conn)
    receipts = [(name, _receipt(book, usage)) for name, usage in events]
    _show(receipts, json=json)
    return all(isinstance(receipt, Receipt) for _, receipt in receipts)


def _read(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    path = Path(name)
    if not path.is_file():
        raise UsageError(f"there is no file {path}.")
    return path.read_bytes()


def _decoded(body: bytes) -> Iterator[tuple[str, Any]]:
    """Each event's id, and the usage or the sentence that says why it is not a usage."""
    now = time.time_ns() // 1000
    if body.lstrip()[:1] == b"[":
        messages = [(body, CONTENT_TYPE_BATCH)]
    else:
        try:
            msgspec.json.decode(body)
            messages = [(body, CONTENT_TYPE_EVENT)]
        except (msgspec.DecodeError, UnicodeDecodeError):
            messages = [(line, CONTENT_TYPE_EVENT) for line in body.splitlines() if line.strip()]
    any_event = False
    for message, content_type in messages:
        decoded = decode_message(message, content_type, now=now, limits=ANY_TIME)
        for usage in decoded.usages:
            any_event = True
            yield usage.event_id, usage
        for rejected in decoded.rejected:
            any_event = True
            yield rejected.event_id or "an event", f"{rejected.reason}: {rejected.detail}"
    if not any_event:
        raise CliError("there is no usage event in it.")


def _receipt(book: PriceBook, usage: Any) -> Receipt | str:
    if isinstance(usage, str):
        return usage
    try:
        terms = PriceTerms(
            usage.tool, usage.provider, usage.model, usage.quantities, usage.occurred_at, usage.workspace_id
        )
        return make_receipt(book, terms)
    except (PriceMissingError, OutOfRangeError) as error:
        return f"{error.reason}: {error}"


def booked_receipt(conn: Connection[Any], workspace_id: str, event_id: str) -> Receipt:
    """Derive the receipt of a booked usage from the book as it was when it was priced.

    Raises:
        NotFoundError: There is no such usage.
        CliError: The receipt does not give the cost that was booked, which must never be.
    """
    usage = usages.find(conn, workspace_id, event_id)
    if usage is None:
        raise NotFoundError(f"Workspace {workspace_id} has no booked usage {event_id}. It may wait in quarantine.")
    receipt = make_receipt(
        load_book(conn, usage.price_version),
        PriceTerms(
            usage.tool, usage.provider, usage.model, usage.quantities, microseconds(usage.occurred_at), workspace_id
        ),
    )
    if receipt.cost != format_usd(usage.cost):
        raise CliError(
            f"usage {event_id} was booked at {format_usd(usage.cost)} USD, but the book's revision {usage.price_version}"
            f" gives {receipt.cost}. One of the two was tampered with: run `taximeter verify`."
        )
    return receipt


def _show(receipts: list[tuple[str, Receipt | str]], *, json: bool) -> None:
    if json:
        documents = [
            {"id": name, "error": receipt} if isinstance(receipt, str) else {"id": name, **msgspec.to_builtins(receipt)}
            for name, receipt in receipts
        ]
        console.emit(documents[0] if len(documents) == 1 else documents)
        return
    for number, (name, receipt) in enumerate(receipts):
        if number:
            console.say("")
        if isinstance(receipt, str):
            console.note(f"taximeter: {name}: {receipt}")
        else:
            show_receipt(receipt)
    total = sum(to_pico(receipt.cost) for _, receipt in receipts if isinstance(receipt, Receipt))
    if len(receipts) > 1:
        console.say(f"\nTogether {format_usd(total)} USD.")
