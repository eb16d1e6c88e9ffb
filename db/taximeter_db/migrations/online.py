"""How a migration takes its locks beside a running system: in booking's order, or each would wait for the other."""

from __future__ import annotations

from alembic import op

BOOKING_ORDER = (
    "usage_keys",
    "payments",
    "workspaces",
    "workspace_keys",
    "usages",
    "usage_payloads",
    "status_changes",
    "notices",
    "notice_deliveries",
    "notice_lanes",
    "stale_flags",
    "quarantine",
)
"""The tables that a booking transaction locks, in the order in which it does."""


def lock_tables(*names: str) -> None:
    """Take all the locks of a migration before it changes anything; what booking does not touch comes last.

    Each is waited for by the bound of `env.py`; the whole migration is tried again then.
    """
    ordered = sorted(names, key=lambda name: (BOOKING_ORDER.index(name) if name in BOOKING_ORDER else 99, name))
    op.execute(f"LOCK TABLE {', '.join(f'taximeter.{name}' for name in ordered)} IN ACCESS EXCLUSIVE MODE")
