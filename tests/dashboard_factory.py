"""Usages, payments, settings and tokens of all kinds for the dashboard's tests."""

from __future__ import annotations

import hashlib
import itertools
import time
from decimal import Decimal
from typing import Any

from joserfc import jwt
from joserfc.jwk import OctKey

from taximeter_cli.embedded.logins import part_url
from taximeter_dashboard.settings import Settings
from taximeter_dashboard.viewers import OWNER
from taximeter_db.events import Payment, Usage, event_key

SECRET = "dashboard secret of the tests, long enough"
HOST_SECRET = "host platform's secret, shared with the page"
ISSUER = "https://host.example"
AUDIENCE = "ai-tracking"
PICO = 10**12

_numbers = itertools.count(1)


def make_usage(workspace_id: str = "acme", event_id: str | None = None, cost: str = "0.0000305", **other: Any) -> Usage:
    event_id = event_id or f"event-{next(_numbers)}"
    fields: dict[str, Any] = {
        "tool": "chat",
        "provider": "openai",
        "model": "gpt-4o",
        "quantities": {"input_tokens": 12, "output_tokens": 3},
        "occurred_at": time.time_ns() // 1000,
        "payload": b'{"input":"What is a lighthouse?","output":"A tower with a light.","metadata":{"user":"u-17"}}',
        "raw": b"{}",
        "fingerprint": hashlib.blake2b(f"{event_id}{cost}".encode(), digest_size=16).digest(),
        "price_version": 1,
        **other,
    }
    return Usage(
        workspace_id=workspace_id,
        event_id=event_id,
        key=event_key(event_id),
        cost=int(Decimal(cost) * PICO),
        **fields,
    )


def make_payment(
    workspace_id: str = "acme", amount: str = "25", payment_id: str | None = None, **other: Any
) -> Payment:
    payment_id = payment_id or f"payment-{next(_numbers)}"
    fields: dict[str, Any] = {
        "kind": "top_up",
        "transaction": {"provider": "stripe", "reference": "pi_3"},
        "note": "thank you",
        "occurred_at": time.time_ns() // 1000,
        "raw": b"{}",
        "fingerprint": hashlib.blake2b(payment_id.encode(), digest_size=16).digest(),
        **other,
    }
    return Payment(workspace_id=workspace_id, payment_id=payment_id, amount=int(Decimal(amount) * PICO), **fields)


def make_token(role: str | None = OWNER, workspaces: Any = ("acme",), *, key: Any = None, **claims: Any) -> str:
    """A host platform's token; `claims` replace or, when None, remove the usual ones."""
    body = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": int(time.time()) + 600,
        "sub": "u-1",
        "name": "Ada",
        "role": role,
        "workspaces": workspaces if isinstance(workspaces, dict) else list(workspaces),
        **claims,
    }
    body = {name: value for name, value in body.items() if value is not None}
    return jwt.encode({"alg": "HS256"}, body, key or OctKey.import_key(HOST_SECRET))


def bearer(*args: Any, **kwargs: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {make_token(*args, **kwargs)}"}


def make_settings(owner_url: str, **other: Any) -> Settings:
    """Settings of a dashboard that connects with a dashboard's rights alone."""
    values: dict[str, Any] = {
        "dashboard_secret": SECRET,
        "token_secret": HOST_SECRET,
        "token_algorithms": ("HS256",),
        "token_issuer": ISSUER,
        "token_audience": AUDIENCE,
        **other,
    }
    return Settings(database_url=part_url(owner_url, "dashboard"), **values)
