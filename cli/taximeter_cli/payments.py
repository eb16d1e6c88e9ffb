"""Payments that are posted directly instead of through the broker, so that the answer is immediate."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from taximeter import names
from taximeter_cli.errors import UsageError
from taximeter_db.ledger.events import Payment
from taximeter_worker.decode.message import decode_message


def build(
    workspace_id: str,
    amount: str,
    payment_id: str,
    kind: str = "top_up",
    transaction: Mapping[str, str] | None = None,
    **more: Any,
) -> Payment:
    """Build the payment as an event and read it as the worker would: one rule book, one fingerprint.

    `more` are further members of ``data``, such as ``note`` and ``expires``; None: it is not given.

    Raises:
        UsageError: The worker would reject it; the sentence says why.
    """
    data: dict[str, Any] = {
        "amount": amount,
        "kind": kind,
        **{name: value for name, value in more.items() if value is not None},
    }
    if transaction:
        data["transaction"] = dict(transaction)
    now = time.time_ns() // 1000
    event = {
        "specversion": "1.0",
        "id": payment_id,
        "source": "/cli",
        "type": names.PAYMENT_TYPE,
        "subject": workspace_id,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now // 1_000_000)),
        "data": data,
    }
    decoded = decode_message(json.dumps(event).encode(), names.CONTENT_TYPE_EVENT, now=now)
    for rejected in decoded.rejected:
        raise UsageError(f"the payment cannot be booked [{rejected.reason}]: {rejected.detail}")
    return decoded.payments[0]
