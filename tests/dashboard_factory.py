"""Usages, payments, settings and tokens of all kinds for the dashboard's tests."""

from __future__ import annotations

import time
from typing import Any

from joserfc import jwt
from joserfc.jwk import OctKey

import factories
from taximeter_cli.embedded.logins import part_url
from taximeter_dashboard.auth.viewers import OWNER
from taximeter_dashboard.settings import Settings
from taximeter_db.ledger.events import Payment, Usage

SECRET = "dashboard secret of the tests, long enough"
HOST_SECRET = "host platform's secret, shared with the page"
ISSUER = "https://host.example"
AUDIENCE = "ai-tracking"
PICO = 10**12


def make_usage(workspace_id: str = "acme", event_id: str | None = None, cost: str = "0.0000305", **other: Any) -> Usage:
    """A usage with a payload, of a cost in dollars."""
    payload = b'{"input":"What is a lighthouse?","output":"A tower with a light.","metadata":{"user":"u-17"}}'
    return factories.make_usage(workspace_id, event_id, cost, **{"payload": payload, **other})


def make_payment(
    workspace_id: str = "acme", amount: str = "25", payment_id: str | None = None, **other: Any
) -> Payment:
    """A payment in dollars with everything that the page shows of one."""
    shown = {"transaction": {"provider": "stripe", "reference": "pi_3"}, "note": "thank you"}
    return factories.make_payment(workspace_id, amount, payment_id, **{**shown, **other})


def make_token(role: str | None = OWNER, workspaces: Any = ("acme",), *, key: Any = None, **claims: Any) -> str:
    """A host platform's token; `claims` replace or, when None, remove the usual ones."""
    body = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": int(time.time()) + 600,
        "sub": "u-1",
        "name": "Ada",
        "role": role,
        "workspaces": list(workspaces) if isinstance(workspaces, tuple) else workspaces,
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
        "api_requests_per_minute": 0,
        **other,
    }
    return Settings(database_url=part_url(owner_url, "dashboard"), **values)
