"""The answer to a request whose call to AI was refused: 402, as problem details (RFC 9457)."""

from __future__ import annotations

from typing import Final

import msgspec

from taximeter.errors import AIDisabled, BudgetExceeded, CallRefusedError

STATUS: Final = 402
CONTENT_TYPE: Final = "application/problem+json"
_TITLES: Final = {AIDisabled: "AI is disabled", BudgetExceeded: "Budget exceeded"}


def body(error: CallRefusedError) -> bytes:
    """The problem as JSON: ``workspace``, and where they are known ``workspace_status``, ``available`` (a decimal string),
    ``budget`` and ``top_up_url``.
    """  # noqa: D205 - one sentence
    known = {
        "workspace": error.workspace,
        "workspace_status": error.status,
        "available": str(error.available) if error.available is not None else None,
        "budget": error.budget,
        "top_up_url": error.top_up_url,
    }
    title = _TITLES.get(type(error), "Insufficient credit")
    problem = {"type": "about:blank", "title": title, "status": STATUS, "detail": str(error)}
    return msgspec.json.encode(problem | {name: value for name, value in known.items() if value is not None})
