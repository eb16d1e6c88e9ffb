"""A notice as a person reads it: a line and a few sentences."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from taximeter_db.notices import deliveries, outbox

_TEST_HEADLINE: Final = "this is a test"


class Text(NamedTuple):
    """What is sent."""

    title: str
    body: str


def of(body: str) -> Text:
    """The text of a notice's body."""
    notice = json.loads(body)
    data: dict[str, Any] = notice["data"]
    lines = [str(data["advice"])] if data.get("advice") else []
    if "amount" in data:
        lines.append(f"Amount: {data['amount']} USD.")
    if "balance" in data:
        lines.append(f"Balance: {data['balance']} USD.")
    lines += _cause(data.get("cause") or {})
    lines.append(f"At {notice['timestamp']}.")
    return Text(f"Taximeter: {data['workspace']}: {_headline(notice['type'])}", "\n".join(lines))


def _headline(key: str) -> str:
    if key == deliveries.TEST:
        return _TEST_HEADLINE
    known = outbox.TYPES.get(key)
    return key if known is None else known.headline  # a newer release may have written it


def _cause(cause: dict[str, Any]) -> list[str]:
    match cause.get("kind"):
        case "usage" | "payment" as kind:
            return [f"Cause: {kind} {cause['id']}." if "id" in cause else f"Cause: {kind}."]
        case "period":
            return ["Cause: the budget's period went on."]
        case "repricing":
            return ["Cause: usages were priced again."]
        case "settings":
            return [f"Cause: the settings, changed by {cause.get('by')}."]
        case _:
            return []
