"""The notice that something has no price, so that its usage waits in quarantine: once, however many events wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import Connection

from taximeter_db import server_time
from taximeter_db.ledger.events import Rejected
from taximeter_db.notices import compose, outbox
from taximeter_db.sql import statement

_NOTE = statement("note_missing_prices")


def note(conn: Connection[Any], rejected: Sequence[Rejected]) -> None:
    """Write a notice of each tool, provider and model that has no price, unless it was notified of under this price book.

    Call it in the transaction that quarantines them. Nothing is asked of the database where nothing lacks a price.
    """
    lacking = [
        (entry.workspace_id, entry.price_query)
        for entry in rejected
        if entry.price_query is not None and entry.workspace_id is not None
    ]
    if not lacking:
        return
    new = conn.execute(
        _NOTE,
        {
            "workspace_ids": [workspace_id for workspace_id, _ in lacking],
            "tools": [query.tool for _, query in lacking],
            "providers": [query.provider or "" for _, query in lacking],
            "models": [query.model or "" for _, query in lacking],
        },
    ).fetchall()
    if new:
        at = server_time.now(conn)
        outbox.put(conn, [compose.of_missing_price(at, *row) for row in new])
