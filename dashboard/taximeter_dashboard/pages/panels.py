"""What the panels of the page show, read from the ledger."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from psycopg import Connection

from taximeter_dashboard.context import AppContext
from taximeter_dashboard.formatting import amounts, contents, sentences, times
from taximeter_db import status_changes
from taximeter_db.ledger import columns
from taximeter_db.queries import summary
from taximeter_db.queries.usages import UsageRow


class Zone(msgspec.Struct, frozen=True):
    """A segment of the zone strip."""

    status: str
    words: str
    range: str
    current: bool


class Card(msgspec.Struct, frozen=True):
    """The summary card."""

    summary: summary.Summary
    balance: str
    balance_exactly: str | None
    word: str
    sentence: list[sentences.Piece]
    zones: list[Zone]
    credit_url: str | None
    as_of: str
    held: int | None = None
    """Set aside for calls that run, in picodollars; None where that is unknown."""

    @property
    def left(self) -> int:
        """Picodollars until AI stops; negative once it has."""
        return self.summary.balance - self.summary.minimum


class UsageLine(msgspec.Struct, frozen=True):
    """A usage in the list."""

    row: UsageRow
    input: str
    output: str
    gone: str | None = None
    """Why neither can be shown, where they were given."""


def card(
    conn: Connection[Any],
    found: summary.Summary,
    credit_url: str,
    now: dt.datetime,
    where: zoneinfo.ZoneInfo,
    held: int | None = None,
) -> Card:
    """The summary card of a workspace."""
    measured = sentences.measure_pace(conn, found, now) if found.enabled and found.usage_count else None
    cause = None if found.enabled else status_changes.switched_off_by(conn, found.workspace_id)
    balance = amounts.rounded(found.balance, (found.minimum, found.low))
    return Card(
        summary=found,
        balance=balance,
        balance_exactly=amounts.exactly(found.balance, balance),
        word=sentences.WORDS[found.status],
        sentence=sentences.sentence(found, measured, cause, now, where),
        zones=_zones(found),
        credit_url=credit_url.replace("{workspace}", found.workspace_id) or None,
        as_of=times.clock(now, where, now),
        held=held,
    )


def _zones(found: summary.Summary) -> list[Zone]:
    minimum, low = amounts.exact(found.minimum), amounts.exact(found.low)
    zones = [("insufficient", "AI off", f"below {minimum}")]
    if found.minimum < found.low:
        zones.append(("low", "Low, AI on", f"{minimum} to {low}"))
    zones.append(("sufficient", "Sufficient", f"{low} and up"))
    return [Zone(status, words, span, status == found.status) for status, words, span in zones]


def with_excerpts(
    conn: Connection[Any], app_context: AppContext, workspace_id: str, rows: list[UsageRow], where: zoneinfo.ZoneInfo
) -> list[UsageLine]:
    """Usages with the beginnings of their inputs and outputs, or why they are gone, with the day in a time zone."""
    now = dt.datetime.now(dt.UTC)
    found = app_context.payloads(conn, workspace_id, rows, contents.EXCERPT_BYTES)
    lines = []
    for row in rows:
        payload = found.get(row.seq)
        shown = contents.excerpts(payload.data, whole=payload.whole) if payload and not payload.gone else ("", "")
        lines.append(UsageLine(row, *shown, gone(payload, where, now)))
    return lines


def decimals_max(values: Sequence[int]) -> int:
    """How many decimals a column needs."""
    return max(map(amounts.decimals, values), default=2)


_LINKED_LABELS: Final = frozenset(("user_id", "tags"))
"""Those that the page can filter by: it shows them as links."""


def other_labels(row: UsageRow) -> list[tuple[str, str]]:
    """The further labels that a usage has: a word for each, and its text."""
    given = [(name, getattr(row, name)) for name in columns.LABELS if name not in _LINKED_LABELS]
    return [(name.removesuffix("_id").replace("_", " "), text) for name, text in given if text]


def gone(payload: Any, where: zoneinfo.ZoneInfo, now: dt.datetime) -> str | None:
    """Why a usage's contents cannot be shown, None where they can, or where there were none.

    `payload` says so by ``gone`` (``erased``, then ``erased_at`` too, ``locked`` or ``damaged``).
    """
    why = getattr(payload, "gone", None)
    if why is None:
        return None
    if why == "erased":
        erased_at = payload.erased_at
        when = f" {times.date(erased_at, where, now)}" if erased_at else ""
        return f"Contents erased{when}; the cost record stays."
    if why == "locked":
        return "The contents are encrypted, and their key is not at hand here; the cost record stays."
    return "The contents cannot be read any more; the cost record stays."
