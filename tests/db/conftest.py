"""Ready-made usages and payments."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from taximeter_db import connect
from taximeter_db.events import Payment, Usage, event_key

_numbers = itertools.count(1)


def _digest(*parts: object) -> bytes:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


def make_usage(workspace_id: str = "acme", event_id: str | None = None, cost: int = 1_000, **other: Any) -> Usage:
    event_id = event_id or f"event-{next(_numbers)}"
    fields: dict[str, Any] = {
        "tool": "chat",
        "provider": "openai",
        "model": "gpt-4o",
        "quantities": {"input_tokens": 12, "output_tokens": 3},
        "occurred_at": time.time_ns() // 1000,
        "payload": None,
        "raw": f'{{"id":"{event_id}","cost":{cost}}}'.encode(),
        "fingerprint": _digest(event_id, cost),
        "price_version": 1,
        **other,
    }
    return Usage(workspace_id=workspace_id, event_id=event_id, key=event_key(event_id), cost=cost, **fields)


def make_payment(
    workspace_id: str = "acme", payment_id: str | None = None, amount: int = 10**12, **other: Any
) -> Payment:
    payment_id = payment_id or f"payment-{next(_numbers)}"
    fields: dict[str, Any] = {
        "kind": "top_up",
        "transaction": None,
        "note": None,
        "occurred_at": time.time_ns() // 1000,
        "raw": f'{{"id":"{payment_id}","amount":{amount}}}'.encode(),
        "fingerprint": _digest(payment_id, amount, other.get("kind")),
        **other,
    }
    return Payment(workspace_id=workspace_id, payment_id=payment_id, amount=amount, **fields)


@pytest.fixture
def usage() -> Callable[..., Usage]:
    return make_usage


@pytest.fixture
def payment() -> Callable[..., Payment]:
    return make_payment


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with connect.booking_connection(database_url) as connection:
        yield connection
