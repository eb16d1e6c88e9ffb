"""The one home of what the tests book: usages, payments, and the states of workspaces. Events: `cloud_events.py`."""

from __future__ import annotations

import hashlib
import itertools
import time
from decimal import Decimal
from typing import Any

from taximeter_db.ledger import columns
from taximeter_db.ledger.events import Payment, Usage, WorkspaceState, event_key
from taximeter_db.money import to_pico

MINIMUM = -120_000_000_000
"""The default minimum balance in picodollars."""
RECORDED_AT = 1_700_000_000_123_456

_numbers = itertools.count(1)


def pico(amount: int | str) -> int:
    """Picodollars as they are, or dollars written as a decimal."""
    return amount if isinstance(amount, int) else to_pico(Decimal(amount))


def _digest(*parts: object) -> bytes:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


def make_usage(workspace_id: str = "acme", event_id: str | None = None, cost: int | str = 1_000, **other: Any) -> Usage:
    """A usage to book; ``cost`` in picodollars, or in dollars if it is a text. Labels by their columns."""
    event_id = event_id or f"event-{next(_numbers)}"
    fields: dict[str, Any] = {
        "tool": "chat",
        "provider": "openai",
        "model": "gpt-4o",
        "quantities": {"input_tokens": 12, "output_tokens": 3},
        "occurred_at": time.time_ns() // 1000,
        "payload": None,
        "raw": f'{{"id":"{event_id}","cost":"{cost}"}}'.encode(),
        "fingerprint": _digest(event_id, cost),
        "price_version": 1,
        **other,
    }
    labels = {name: fields.pop(name) for name in columns.LABELS if name in fields}
    fields["labels"] = columns.Labels(**labels) if labels else None
    return Usage(workspace_id=workspace_id, event_id=event_id, key=event_key(event_id), cost=pico(cost), **fields)


def make_payment(
    workspace_id: str = "acme", amount: int | str = 10**12, payment_id: str | None = None, **other: Any
) -> Payment:
    """A payment to book; ``amount`` in picodollars, or in dollars if it is a text."""
    payment_id = payment_id or f"payment-{next(_numbers)}"
    fields: dict[str, Any] = {
        "kind": "top_up",
        "transaction": None,
        "note": None,
        "occurred_at": time.time_ns() // 1000,
        "raw": f'{{"id":"{payment_id}","amount":"{amount}"}}'.encode(),
        "fingerprint": _digest(payment_id, amount, other.get("kind")),
        **other,
    }
    return Payment(workspace_id=workspace_id, payment_id=payment_id, amount=pico(amount), **fields)


def make_state(workspace_id: str = "acme", balance: int | str = 0, **other: Any) -> WorkspaceState:
    """A workspace's state after a commit, as the writer of flags gets it."""
    fields: dict[str, Any] = {
        "minimum": MINIMUM,
        "low": 0,
        "usage_count": 1,
        "payment_count": 0,
        "version": 1,
        "epoch": 1,
        "recorded_at": RECORDED_AT,
        **other,
    }
    return WorkspaceState(workspace_id, pico(balance), **fields)
