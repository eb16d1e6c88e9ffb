"""What the JSON API answers about statements and grants, for its OpenAPI document."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from taximeter_dashboard.api.documents import Amount, Count, Moment


class GrantDocument(BaseModel):
    """Credit that expires."""

    payment_id: str = Field(examples=["promo-1"])
    amount: Amount = Field(examples=["5"])
    left: Amount = Field(examples=["3.5"])
    expires_at: Moment
    priority: int = Field(description="Of two that expire at once, the lower is used first.", examples=[0])


class GrantsDocument(BaseModel):
    """Grants whose expiry is not booked, in the order in which they are used."""

    items: list[GrantDocument]


class StatementHeadDocument(BaseModel):
    """A month's account: opening + payments - usage = closing."""

    month: str = Field(examples=["2026-11"])
    number: int = Field(description="By month, without a gap, from the first entry on.", examples=[3])
    final: bool = Field(description="Whether the month is closed: then it never changes.", examples=[True])
    closed_at: Moment | None
    zone: str = Field(description="In which the month begins.", examples=["Europe/Riga"])
    starts_at: Moment
    ends_at: Moment
    opening: Amount = Field(examples=["12.5"])
    payments: Amount = Field(description="Signed.", examples=["25"])
    usage: Amount = Field(examples=["7.224"])
    closing: Amount = Field(examples=["30.276"])
    payment_count: Count
    usage_count: Count


class StatementsDocument(BaseModel):
    """Statements, newest first."""

    items: list[StatementHeadDocument]
    next: int | None = Field(description="Pass it as `before` for what follows; null at the end.", examples=[7])


class PaidDocument(BaseModel):
    """The payments of one kind in a month."""

    kind: Literal["top_up", "promo", "refund", "clawback", "reinstated", "expiry", "adjustment"] = Field(
        examples=["top_up"]
    )
    count: Count
    amount: Amount = Field(description="Signed.", examples=["25"])


class UsedDocument(BaseModel):
    """What one tool, model or user cost in a month."""

    name: str | None = Field(
        description="Null for usages that name none (`names` is 0), and for names beyond the first 2,000.",
        examples=["chat"],
    )
    names: Count = Field(description="How many names the line counts.", examples=[1])
    usages: Count
    cost: Amount = Field(examples=["7.224"])


class StatementDocument(StatementHeadDocument):
    """A month's account with its lines: each of the three splits of usage sums to usage."""

    workspace_id: str = Field(examples=["acme"])
    payments_by_kind: list[PaidDocument]
    usage_by_tool: list[UsedDocument]
    usage_by_model: list[UsedDocument]
    usage_by_user: list[UsedDocument]
