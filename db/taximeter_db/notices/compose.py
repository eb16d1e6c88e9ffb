"""Composes notices: one function for each event that people are notified of. docs/notices.md lists the members of `data`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from taximeter_db.ledger.events import Payment, WorkspaceState
from taximeter_db.money import format_usd
from taximeter_db.notices import outbox
from taximeter_db.notices.outbox import Notice

if TYPE_CHECKING:
    from taximeter_db.budgets.standing import Crossing
    from taximeter_db.status_changes import StatusChange

STATUS: Final = "status"
"""The subject of notices of a workspace's status."""
_BUDGET_TYPES: Final = {
    "warned": outbox.BUDGET_WARNED,
    "exceeded": outbox.BUDGET_EXCEEDED,
    "restored": outbox.BUDGET_RESTORED,
}


def of_status_change(change: StatusChange) -> Notice:
    """The notice of a change of status: worse, or better again."""
    match change.before, change.after:
        case _, "insufficient":
            kind = outbox.WORKSPACE_INSUFFICIENT
            advice = f"AI is off. {format_usd(change.minimum - change.balance)} USD or more switches it on again."
        case "sufficient", "low":
            kind = outbox.WORKSPACE_LOW
            advice = f"AI stops below {format_usd(change.minimum)} USD. Add credit to end this warning."
        case _:
            kind = outbox.WORKSPACE_RESTORED
            advice = "AI is on."
            if change.after == "low":
                advice = f"AI is on, with a warning: it stops below {format_usd(change.minimum)} USD. Add credit."
    data = {
        "status": change.after,
        "status_before": change.before,
        "enabled": change.after != "insufficient",
        "balance": format_usd(change.balance),
        "minimum_balance": format_usd(change.minimum),
        "low_balance_threshold": format_usd(change.low),
        "entry": change.entry,
        "cause": _cause_of(change),
        "advice": advice,
    }
    return Notice(
        workspace_id=change.workspace_id,
        type=kind,
        at=change.changed_at,
        data=data,
        subject=STATUS,
        state=change.after,
    )


def _cause_of(change: StatusChange) -> dict[str, Any]:
    if change.cause == "settings":
        return {"kind": change.cause, "by": change.cause_id}
    return {"kind": change.cause, "id": change.cause_id, "seq": change.cause_seq}


def of_payments(payments: Iterable[Payment], states: Mapping[str, WorkspaceState]) -> list[Notice]:
    """A notice of each payment, with the state of its workspace after all of them."""
    notices = []
    for payment in payments:
        state = states[payment.workspace_id]
        data = {
            "status": state.status,
            "enabled": state.enabled,
            "balance": format_usd(state.balance),
            "minimum_balance": format_usd(state.minimum),
            "low_balance_threshold": format_usd(state.low),
            "amount": format_usd(payment.amount),
            "cause": {"kind": "payment", "id": payment.payment_id, "payment_kind": payment.kind},
        }
        notices.append(
            Notice(workspace_id=payment.workspace_id, type=outbox.PAYMENT_BOOKED, at=state.recorded_at, data=data)
        )
    return notices


def of_budget_crossing(crossing: Crossing, state: WorkspaceState) -> Notice:
    """The notice that a budget crossed a threshold, with the state of its workspace."""
    cause: dict[str, Any] = {"kind": crossing.cause}
    if crossing.cause_id is not None:
        cause["by" if crossing.cause == "settings" else "id"] = crossing.cause_id
    data = {
        "status": state.status,
        "balance": format_usd(state.balance),
        "minimum_balance": format_usd(state.minimum),
        "budget": crossing.name,
        "limit": format_usd(crossing.limit),
        "spent": format_usd(crossing.spent),
        "percent": crossing.percent,
        "hard": crossing.hard,
        "cause": cause,
        "advice": _budget_advice(crossing),
    }
    return Notice(
        workspace_id=crossing.workspace_id,
        type=_BUDGET_TYPES[crossing.kind],
        at=crossing.moment,
        data=data,
        subject=f"budget:{crossing.name}",
        state=crossing.kind,
    )


def _budget_advice(crossing: Crossing) -> str:
    if crossing.kind == "restored":
        return f"Budget {crossing.name} is open again."
    if crossing.kind == "warned":
        return f"Budget {crossing.name} is spent to {crossing.percent} %. Look at what costs more than planned."
    if crossing.hard:
        return (
            f"Calls that budget {crossing.name} concerns are refused until its period ends. Raise it to allow them now."
        )
    return f"Budget {crossing.name} is used up. It is soft: no call is refused."


def of_missing_price(at: int, workspace_id: str, tool: str, provider: str, model: str) -> Notice:
    """The notice that usage has no price; `provider` and `model` are empty where its events name none."""
    what = " ".join(part for part in (provider, model) if part) or tool
    return Notice(
        workspace_id=workspace_id,
        type=outbox.PRICE_MISSING,
        at=at,
        data={
            "cause": {"kind": "price", "tool": tool, "provider": provider or None, "model": model or None},
            "advice": f"Usage of {what} waits in quarantine until it has a price: `taximeter prices missing` lists what lacks"
            " one, `taximeter prices set` sets it. What waits is booked by itself then.",
        },
    )
