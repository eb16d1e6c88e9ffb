"""Usages as a page shows them."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import msgspec
from psycopg import Connection

from taximeter_db import money
from taximeter_db.ledger import columns
from taximeter_db.ledger.columns import Labels
from taximeter_db.ledger.events import event_key
from taximeter_db.sql import statement, statements

_SHOWN = ", ".join(
    f"u.{name}::text" if columns.KINDS[name] in {"usd", "json"} else f"u.{name}" for name in columns.SHOWN
)
_STATEMENTS = {name: text.replace("{columns}", _SHOWN) for name, text in statements("read_usages").items()}
_FIXED = len(columns.SHOWN) - len(columns.LABELS)
_FIND = statement("find_usage")
_SEQ_AT = statement("seq_at")
_WINDOW_ROWS = 5_000
_BOOKING_MAX = dt.timedelta(minutes=15)
"""Longer than any booking transaction lives."""
_SLACK_SECONDS = (0, 300)
PAGE_MAX = 1_000


class UsageRow(Labels, frozen=True):
    """A booked usage. Amounts in picodollars; `quantities` exact, as booked; `estimated` where a policy priced it."""

    workspace_id: str
    seq: int
    event_id: str
    tool: str
    provider: str | None
    model: str | None
    quantities: dict[str, int | Decimal]
    cost: int
    balance_after: int
    occurred_at: dt.datetime
    recorded_at: dt.datetime
    price_version: int
    estimated: bool

    @property
    def balance_before(self) -> int:
        """Picodollars."""
        return self.balance_after + self.cost


_decode_quantities = msgspec.json.Decoder(dict[str, int | Decimal]).decode
_decode_texts = msgspec.json.Decoder(dict[str, str]).decode


def _row(workspace_id: str, row: tuple[Any, ...]) -> UsageRow:
    """A row of `_SHOWN`."""
    seq, event_id, tool, provider, model, quantities, cost, balance_after, occurred_at, recorded_at, version = row[
        :_FIXED
    ]
    labels: dict[str, Any] = {
        name: _decode_texts(label) if label is not None and kind == "json" else label
        for (name, kind), label in zip(columns.LABELS.items(), row[_FIXED:], strict=True)
    }
    return UsageRow(
        workspace_id,
        seq,
        event_id,
        tool,
        provider,
        model,
        _decode_quantities(quantities),
        money.from_numeric_text(cost),
        money.from_numeric_text(balance_after),
        occurred_at,
        recorded_at,
        abs(version),
        version < 0,  # decision 0048
        **labels,
    )


def between(conn: Connection[Any], workspace_id: str, first: int, last: int) -> list[UsageRow]:
    """Usages number `first` to `last`, both included, in that order; at most `PAGE_MAX`."""
    if last < first:
        return []
    values = {"workspace_id": workspace_id, "first": first, "last": last, "limit": PAGE_MAX}
    return [_row(workspace_id, row) for row in conn.execute(_STATEMENTS["between"], values)]


def pick(conn: Connection[Any], workspace_id: str, seqs: list[int]) -> list[UsageRow]:
    """Usages of these numbers, in the order given."""
    values = {"workspace_id": workspace_id, "seqs": seqs}
    rows = {row[0]: _row(workspace_id, row) for row in conn.execute(_STATEMENTS["pick"], values)}
    return [rows[seq] for seq in seqs if seq in rows]


def get(conn: Connection[Any], workspace_id: str, seq: int) -> UsageRow | None:
    """One usage by its number."""
    return next(iter(between(conn, workspace_id, seq, seq)), None)


def find(conn: Connection[Any], workspace_id: str, event_id: str) -> UsageRow | None:
    """One usage by its event id; None where there is none, or where no event can have such an id."""
    if not (event_id.isascii() and event_id.isprintable()):
        return None
    names = {"workspace_id": workspace_id, "event_key": uuid.UUID(bytes=event_key(event_id))}
    for slack_seconds in _SLACK_SECONDS:
        row = conn.execute(_FIND, {**names, "slack_seconds": slack_seconds}).fetchone()
        if row is None:
            return None
        first, since = row
        # Bounded windows, so that no plan reads a partition: nearly always the first one holds it.
        while True:
            window = {
                "workspace_id": workspace_id,
                "event_id": event_id,
                "first": first,
                "last": first + _WINDOW_ROWS - 1,
            }
            seq, until = conn.execute(_STATEMENTS["window"], window).fetchone()  # type: ignore[misc]  # one row always
            if seq is not None:
                return get(conn, workspace_id, seq)
            if until is None or until > since + _BOOKING_MAX:
                break
            first += _WINDOW_ROWS
    return None


def seq_at(conn: Connection[Any], workspace_id: str, moment: dt.datetime) -> int:
    """Number of the first usage recorded at `moment` or later; one more than the last where there is none."""
    row = conn.execute(_SEQ_AT, {"workspace_id": workspace_id, "moment": moment}).fetchone()
    return int(row[0]) if row else 1
