"""The outbox: a notice is written in the transaction that causes it, so it exists exactly if that transaction commits."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from psycopg import Connection

from taximeter_db.server_time import moment
from taximeter_db.sql import statement

WORKSPACE_LOW: Final = "workspace.low"
WORKSPACE_INSUFFICIENT: Final = "workspace.insufficient"
WORKSPACE_RESTORED: Final = "workspace.restored"
BUDGET_WARNED: Final = "budget.warned"
BUDGET_EXCEEDED: Final = "budget.exceeded"
BUDGET_RESTORED: Final = "budget.restored"
PAYMENT_BOOKED: Final = "payment.booked"
PAYMENT_FAILED: Final = "payment.failed"
TOP_UP_FAILED: Final = "top_up.failed"
PRICE_MISSING: Final = "price.missing"


class NoticeType(msgspec.Struct, frozen=True):
    """How people read a type of notice.

    Attributes:
        name: On the page.
        headline: Of a message to a person, after the workspace's id.
        is_sent: False while nothing writes it: a target may ask for it already, and the page does not offer it.
    """

    name: str
    headline: str
    is_sent: bool = True


TYPES: Final = {
    WORKSPACE_LOW: NoticeType("Balance low", "the balance is low"),
    WORKSPACE_INSUFFICIENT: NoticeType("AI off", "AI is off"),
    WORKSPACE_RESTORED: NoticeType("AI on again", "AI is on"),
    BUDGET_WARNED: NoticeType("Budget nearly used up", "a budget is nearly used up"),
    BUDGET_EXCEEDED: NoticeType("Budget used up", "a budget is used up"),
    BUDGET_RESTORED: NoticeType("Budget open again", "a budget is open again"),
    PAYMENT_BOOKED: NoticeType("Payment booked", "a payment was booked"),
    PAYMENT_FAILED: NoticeType("Payment failed", "a payment failed", is_sent=False),
    TOP_UP_FAILED: NoticeType("Top-up failed", "a top-up failed", is_sent=False),
    PRICE_MISSING: NoticeType("Price missing", "a price is missing"),
}
"""Every type that a target may ask for. Page, messages and command line read this list."""

_PUT = statement("put_notices")


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a workspace's people, or the platform's, are notified of.

    Attributes:
        workspace_id: Whose notice it is.
        type: One of `TYPES`.
        at: When it happened, in microseconds since the Unix epoch.
        data: What the receiver learns beside the workspace: JSON values, amounts as decimal strings (`money.format_usd`).
            ``cause`` says what caused it, ``advice`` what to do.
        subject: What changed its state, such as ``status`` or ``budget:search``; None for what has no state (a payment).
        state: The state that it is in now. Of a flapping subject, a target with a quiet time gets the last state alone.
    """

    workspace_id: str
    type: str
    at: int
    data: Mapping[str, Any]
    subject: str | None = None
    state: str | None = None

    def body(self) -> str:
        """What is sent, to the letter: ``{"type", "timestamp", "data": {"workspace", …}}``."""
        content = {
            "type": self.type,
            "timestamp": moment(self.at).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "data": {"workspace": self.workspace_id, **self.data},
        }
        return json.dumps(content, separators=(",", ":"))


def put(conn: Connection[Any], notices: Sequence[Notice]) -> int:
    """Write notices to the outbox, for the targets that want them; returns how many deliveries that makes.

    Call it in the transaction that causes them, after the rows of their workspaces are locked (as booking's update and
    `SELECT … FOR UPDATE` do): a workspace's notices are delivered in the order in which they are written under that lock.
    One that no target wants is not written.

    One call locks its lanes sorted; a second call in the same transaction may need lanes that sort before them, and wait
    for somebody who waits for this transaction. Booking calls it once for each of payments, changes of status, budgets
    and missing prices all the same, so that a payment comes before the change of status that it causes. Others rarely
    wait for two lanes at once (a replay does), and booking repeats a transaction that deadlocks.
    """
    if not notices:
        return 0
    row = conn.execute(
        _PUT,
        {
            "public_ids": [uuid.uuid4() for _ in notices],
            "workspace_ids": [notice.workspace_id for notice in notices],
            "types": [notice.type for notice in notices],
            "subjects": [notice.subject for notice in notices],
            "states": [notice.state for notice in notices],
            "bodies": [notice.body() for notice in notices],
            "times": [moment(notice.at) for notice in notices],
        },
    ).fetchone()
    return int(row[0]) if row else 0
