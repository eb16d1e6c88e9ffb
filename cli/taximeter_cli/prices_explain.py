"""`taximeter prices explain`: the receipt of an event, of a file of events, or of a usage already booked."""

from __future__ import annotations

import json as jsonlib
import sys
import time
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from psycopg import Connection

from taximeter.names import CONTENT_TYPE_BATCH, CONTENT_TYPE_EVENT
from taximeter_cli import console, session
from taximeter_cli.errors import CliError, UsageError
from taximeter_cli.prices_output import show_receipt
from taximeter_db.errors import NotFoundError
from taximeter_db.events import event_key
from taximeter_db.money import format_usd, to_pico
from taximeter_worker.decode import Limits, decode_message
from taximeter_worker.pricing import OutOfRange, PriceBook, PriceMissing, Receipt, load_book
from taximeter_worker.pricing import explain as make_receipt
from taximeter_worker.pricing.book import microseconds

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
    """Each event's id, and the usage or the sentence that says why it is none."""
    now = time.time_ns() // 1000
    if body.lstrip()[:1] == b"[":
        messages = [(body, CONTENT_TYPE_BATCH)]
    else:
        try:
            msgspec.json.decode(body)
            messages = [(body, CONTENT_TYPE_EVENT)]
        except (msgspec.DecodeError, UnicodeDecodeError):
            messages = [(line, CONTENT_TYPE_EVENT) for line in body.splitlines() if line.strip()]
    found = False
    for message, content_type in messages:
        decoded = decode_message(message, content_type, now=now, limits=ANY_TIME)
        for usage in decoded.usages:
            found = True
            yield usage.event_id, usage
        for rejected in decoded.rejected:
            found = True
            yield rejected.event_id or "an event", f"{rejected.reason}: {rejected.detail}"
    if not found:
        raise CliError("there is no usage event in it.")


def _receipt(book: PriceBook, usage: Any) -> Receipt | str:
    if isinstance(usage, str):
        return usage
    try:
        return make_receipt(
            book, usage.tool, usage.provider, usage.model, usage.quantities, usage.occurred_at, usage.workspace_id
        )
    except (PriceMissing, OutOfRange) as error:
        return f"{error.reason}: {error}"


def booked_receipt(conn: Connection[Any], workspace_id: str, event_id: str) -> Receipt:
    """Derive the receipt of a booked usage from the book as it was when it was priced.

    Raises:
        NotFoundError: There is no such usage.
        CliError: The receipt does not give the cost that was booked, which must never be.
    """
    key = uuid.UUID(bytes=event_key(event_id))
    # The key knows when it was booked: that leaves one or two partitions of the log to search.
    row = conn.execute(
        "SELECT tool, provider, model, quantities::text, occurred_at, price_version, cost FROM taximeter.usages"
        " WHERE workspace_id = %(workspace)s AND event_id = %(event)s"
        " AND recorded_at >= (SELECT booked_at FROM taximeter.usage_keys"
        "   WHERE event_key = %(key)s AND workspace_id = %(workspace)s)"
        " AND recorded_at < (SELECT booked_at + interval '1 hour' FROM taximeter.usage_keys"
        "   WHERE event_key = %(key)s AND workspace_id = %(workspace)s)",
        {"workspace": workspace_id, "event": event_id, "key": key},
    ).fetchone()
    if row is None:
        raise NotFoundError(f"Workspace {workspace_id} has no booked usage {event_id}. It may wait in quarantine.")
    tool, provider, model, quantities, occurred_at, price_version, cost = row
    receipt = make_receipt(
        load_book(conn, abs(price_version)),  # negative where it is an estimate
        tool,
        provider,
        model,
        jsonlib.loads(quantities, parse_float=Decimal),
        microseconds(occurred_at),
        workspace_id,
    )
    if receipt.cost != format_usd(to_pico(cost)):
        raise CliError(
            f"usage {event_id} was booked at {format_usd(to_pico(cost))} USD, but the book's revision {price_version} "
            f"gives {receipt.cost}. One of the two was tampered with: run `taximeter verify`."
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
