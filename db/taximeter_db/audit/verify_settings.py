"""Whether the price book, the limits and the rollups are what was written down of them."""

from __future__ import annotations

from typing import Any

from psycopg import Connection
from sqlalchemy import bindparam, select

from taximeter_db import money
from taximeter_db.audit.checkpoint import Checkpoint
from taximeter_db.audit.faults import Fault
from taximeter_db.core import Statement
from taximeter_db.models.ledger import Workspace
from taximeter_db.models.prices import PriceLink
from taximeter_db.sql import statements

_SQL = statements("verify_settings")
_LIMITS = Statement(select(Workspace.workspace_id, Workspace.minimum_balance, Workspace.low_balance_threshold))
_LINK = Statement(select(PriceLink.link).where(PriceLink.revision == bindparam("revision")))


def price_book(conn: Connection[Any], checkpoint: Checkpoint | None) -> list[Fault]:
    """Compare each revision with the chain, and the chain with the checkpoint."""
    (revision,) = conn.execute(_SQL["prices"]).fetchone() or (None,)
    if revision is None and checkpoint is not None and checkpoint.prices is not None:
        known = checkpoint.prices
        if known.revision and _LINK.scalar(conn, revision=known.revision) != bytes.fromhex(known.link):
            revision = known.revision
    return [] if revision is None else [Fault("", "prices", stored=str(revision))]


def limits(conn: Connection[Any], checkpoint: Checkpoint | None) -> list[Fault]:
    """Compare the limits with the last logged change of each, and with the checkpoint and what was logged after it."""
    faults = [
        Fault(workspace_id, "limits", stored=stored, computed=logged, field=field)
        for workspace_id, field, stored, logged in conn.execute(_SQL["limits"])
    ]
    if checkpoint is None or not checkpoint.limits:
        return faults
    seen = {(fault.workspace_id, fault.field) for fault in faults}
    changed: dict[tuple[str, str], set[str]] = {}
    for workspace_id, field, before in conn.execute(_SQL["limits_changed"], {"since": checkpoint.made_at}):
        changed.setdefault((workspace_id, field), set()).add(before)
    for workspace_id, minimum, low in _LIMITS.all(conn):
        known = checkpoint.limits.get(workspace_id)
        if known is None:
            continue
        for field, stored, then in (("minimum", minimum, known.minimum), ("low", low, known.low)):
            key, text = (workspace_id, field), money.format_usd(then)
            if stored != then and text not in changed.get(key, ()) and key not in seen:
                faults.append(
                    Fault(workspace_id, "limits", stored=money.format_usd(stored), computed=text, field=field)
                )
    return faults


def rollups(conn: Connection[Any]) -> list[Fault]:
    """Compare what the page's totals are made of with the log."""
    return [Fault(workspace_id, "rollups") for (workspace_id,) in conn.execute(_SQL["rollups"])]
