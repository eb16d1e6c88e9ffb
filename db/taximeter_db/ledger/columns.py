"""What a usage consists of: the one list that all who write, hash, read or show usages read.

COPY, the hash chain, `verify`, the table's model, the page's rows, the export and the JSON API's body follow these lists.
A new field of a usage is a label: a field of `Labels` and a generation of `LABEL_GENERATIONS`; docs/howto.md says what
else. `tests/db/test_usage_columns.py` names every place that does not know it yet.
"""

from __future__ import annotations

from typing import Final

import msgspec

from taximeter_db.errors import NotFoundError


class Labels(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """The labels of a usage, None where it has none. A row that is read has them as fields of its own."""

    user_id: str | None = None
    tags: dict[str, str] | None = None
    hold_id: str | None = None


LABEL_GENERATIONS: Final[tuple[dict[str, str], ...]] = (
    {"user_id": "text", "tags": "json", "hold_id": "text"},  # since schema 0021
)
"""The columns of the labels by the schema that brought them, each with its kind, see `KINDS`.

The hash chain covers a usage up to the last generation of which it has a label, so that its links stay what they were
before the later ones existed (decision 0290).
"""

LABELS: Final = {name: kind for generation in LABEL_GENERATIONS for name, kind in generation.items()}
"""All of them, in order. They end each of the lists below."""

KINDS: Final = {
    # booking decides these
    "seq": "int",
    "entry": "int",
    "recorded_at": "time",
    "link": "bytes",
    "balance_after": "usd",
    "workspace_id": "text",
    # the event says these, priced
    "price_version": "int",
    "occurred_at": "time",
    "fingerprint": "uuid",
    "cost": "usd",
    "tool": "text",
    "provider": "text",
    "model": "text",
    "event_id": "text",
    "quantities": "json",
    # and these, most often not
    **LABELS,
}
"""Every column of ``taximeter.usages`` and what kind of value it holds, in the order of a row of COPY."""

CHAINED: Final = (
    "price_version",
    "occurred_at",
    "fingerprint",
    "cost",
    "tool",
    "provider",
    "model",
    "event_id",
    "quantities",
    *LABELS,
)
"""What the hash chain covers: the arguments of ``taximeter.usage_content``, in order. They end a row of COPY."""

LOG_VIEW: Final = (
    "workspace_id",
    "seq",
    "event_id",
    "tool",
    "provider",
    "model",
    "quantities",
    "cost",
    "balance_after",
    "occurred_at",
    "recorded_at",
    *LABELS,
)
"""The public view ``taximeter.usage_log``, in the contract's order; new columns stand last."""

SHOWN: Final = (
    "seq",
    "event_id",
    "tool",
    "provider",
    "model",
    "quantities",
    "cost",
    "balance_after",
    "occurred_at",
    "recorded_at",
    "price_version",
    *LABELS,
)
"""What the page and the JSON API show of a usage, in the API's order."""

EXPORTED: Final = (
    "seq",
    "event_id",
    "recorded_at",
    "occurred_at",
    "tool",
    "provider",
    "model",
    "quantities",
    "cost",
    "balance_after",
    "price_version",
    *LABELS,
)
"""The columns of an exported file, in order. Amounts are labelled with their currency, see `exported_label`."""

DERIVED: Final = ("estimated",)
"""Shown and exported after the columns, and stored in none: the sign of ``price_version`` (decision 0048)."""


def listed(names: tuple[str, ...], table: str = "") -> str:
    """Columns as SQL lists them, each of the table with that alias if one is given."""
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        raise NotFoundError(f"A usage has no column {', '.join(unknown)}.")
    return ", ".join(f"{table}.{name}" if table else name for name in names)


def exported_label(name: str) -> str:
    """What a column is called in an exported file."""
    return f"{name}_usd" if KINDS.get(name) == "usd" else name
