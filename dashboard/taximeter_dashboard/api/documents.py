"""The shapes of the JSON API's answers, for the OpenAPI document and for the reader."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

_MOMENT = "2026-11-22T10:00:00.123000Z"
_CURSOR = "pV3kZ8QyqkW1d0xNMjM"

Amount = Annotated[str, Field(pattern=r"^-?[0-9]+(\.[0-9]{1,12})?$", examples=["0.0007625"], description="USD, exact")]
Status = Literal["sufficient", "low", "insufficient"]
Moment = Annotated[dt.datetime, Field(examples=[_MOMENT])]
Count = Annotated[int, Field(ge=0, examples=[1204])]
Next = Annotated[
    str | None, Field(description="Pass it as `cursor` for what follows; null at the end.", examples=[_CURSOR])
]


class SummaryDocument(BaseModel):
    """A workspace at a glance; payment_total - usage_cost = balance, to the last digit."""

    workspace_id: str = Field(examples=["acme"])
    status: Status = Field(examples=["sufficient"])
    enabled: bool = Field(examples=[True], description="Whether AI is enabled.")
    balance: Amount = Field(examples=["12.8416972305"])
    minimum_balance: Amount = Field(examples=["-0.12"])
    low_balance_threshold: Amount = Field(examples=["0"])
    remaining: Amount = Field(
        description="Balance minus minimum: what is left until AI stops. Negative once it has.",
        examples=["12.9616972305"],
    )
    held: Amount | None = Field(
        description="Set aside by open holds, for calls that run; it is not spent. Null where that is unknown.",
        examples=["0.05"],
    )
    available: Amount | None = Field(
        description="Remaining minus held: what a further call may hold. Null where that is unknown.",
        examples=["12.9116972305"],
    )
    usage_count: Count
    usage_cost: Amount = Field(examples=["12.1583027695"])
    payment_count: Count = Field(examples=[1])
    payment_total: Amount = Field(examples=["25"])
    updated_at: Moment | None


class GlanceDocument(BaseModel):
    """A workspace in a list."""

    workspace_id: str = Field(examples=["acme"])
    status: Status = Field(examples=["sufficient"])
    enabled: bool = Field(examples=[True])
    balance: Amount = Field(examples=["12.8416972305"])


class WorkspacesDocument(BaseModel):
    """Workspaces by id; fewer than `limit` are the last ones."""

    items: list[GlanceDocument]


class UsageDocument(BaseModel):
    """A booked usage."""

    seq: int = Field(
        description="Number within the workspace, from 1 without a gap, in the order of booking.", examples=[1204]
    )
    event_id: str = Field(examples=["0199c7f2-6d0e-7a55-8f3c-2f4f8f0c9a11"])
    tool: str = Field(examples=["chat"])
    provider: str | None = Field(examples=["openai"])
    model: str | None = Field(examples=["gpt-4o"])
    quantities: dict[str, float] = Field(
        examples=[{"input_tokens": 1200, "output_tokens": 300}],
        description="Units used. Exact, with at most 6 decimals: read them as decimals.",
    )
    cost: Amount = Field(examples=["0.006"])
    balance_after: Amount = Field(examples=["12.8416972305"])
    occurred_at: Moment = Field(description="When it happened, as its producer says.")
    recorded_at: Moment = Field(description="When it was booked.")
    price_version: int = Field(examples=[3], description="Revision of the price book that gave the price.")
    user_id: str | None = Field(examples=["u-17"], description="Who within the workspace, as the event says.")
    tags: dict[str, str] = Field(
        examples=[{"team": "search"}], description="As the event says; an empty object where it has none."
    )
    hold_id: str | None = Field(
        examples=["0199c7f2-6d0e-7a55-8f3c-2f4f8f0c9a12"], description="The hold that this usage settles."
    )
    estimated: bool = Field(description="Whether a policy for missing prices gave the price.", examples=[False])


class UsageDetailsDocument(UsageDocument):
    """A booked usage with all that is known of it."""

    receipt: dict[str, Any] | None = Field(
        description="How the cost came about; null where it cannot be derived.",
        examples=[
            {
                "lines": [
                    {"unit": "input_tokens", "quantity": "1200", "amount": "2.50", "per": "1000000", "cost": "0.003"},
                    {"unit": "output_tokens", "quantity": "300", "amount": "10", "per": "1000000", "cost": "0.003"},
                ],
                "exact": "0.006",
                "rounding": "0",
                "cost": "0.006",
            }
        ],
    )
    contents: dict[str, Any] | None = Field(
        description="input, output and metadata, as far as given.",
        examples=[{"input": "What is a taximeter?", "output": "An instrument.", "metadata": {"user": "u-17"}}],
    )


class PaymentDocument(BaseModel):
    """A booked payment."""

    seq: int = Field(examples=[1])
    payment_id: str = Field(examples=["payment-2"])
    kind: Literal["top_up", "promo", "refund", "clawback", "reinstated", "expiry", "adjustment"] = Field(
        examples=["top_up"]
    )
    amount: Amount = Field(examples=["25"], description="USD, exact; an adjustment alone may be negative")
    balance_after: Amount = Field(examples=["24.878"])
    transaction: dict[str, str] | None = Field(examples=[{"provider": "stripe", "reference": "pi_3"}])
    note: str | None = Field(examples=["Thank you"])
    occurred_at: Moment
    recorded_at: Moment


class UsagesDocument(BaseModel):
    """A page of usages."""

    items: list[UsageDocument]
    next: Next
    total: int | None = Field(
        description="How many match. Null where nobody has counted: a start of an id that many share.", examples=[1204]
    )


class PaymentsDocument(BaseModel):
    """A page of payments."""

    items: list[PaymentDocument]
    next: Next
    total: Count


class StatusChangeDocument(BaseModel):
    """A change of status, and what changed it."""

    changed_at: Moment
    status_before: Status = Field(examples=["low"])
    status_after: Status = Field(examples=["insufficient"])
    balance_after: Amount = Field(examples=["-0.122"])
    minimum_balance: Amount = Field(examples=["-0.12"])
    low_balance_threshold: Amount = Field(examples=["0"])
    cause: Literal["usage", "payment", "settings"] = Field(examples=["usage"])
    cause_id: str | None = Field(
        description="The event's id, the payment's, or who changed the settings.",
        examples=["0199c7f2-6d0e-7a55-8f3c-2f4f8f0c9a11"],
    )
    tool: str | None = Field(examples=["chat"])
    amount: Amount | None = Field(examples=["-0.006"], description="What moved the balance, signed.")


class StatusChangesDocument(BaseModel):
    """A page of changes, newest first."""

    items: list[StatusChangeDocument]
    next: Next
    kept_since: Moment = Field(description="From when on the changes are complete.")


class SpentDocument(BaseModel):
    """What one tool, model, user or text of a tag cost."""

    name: str = Field(examples=["chat"])
    usages: Count
    cost: Amount = Field(examples=["7.224"])


class PeriodDocument(BaseModel):
    """An hour, day or month."""

    start: dt.datetime = Field(examples=["2026-11-22T00:00:00+02:00"], description="In the zone that was asked for.")
    usages: Count
    cost: Amount = Field(examples=["7.224"])
    costs: dict[str, Amount] = Field(examples=[{"chat": "7.224"}], description="By name; what is 0 is left out.")
    high: bool = Field(description="Over three times the median of the 14 before.", examples=[False])
    running: bool = Field(description="Not over yet.", examples=[True])


class AnalysisDocument(BaseModel):
    """Cost over time; names beyond the first five are added up."""

    span: Literal["day", "month", "year"] = Field(examples=["month"])
    by: str = Field(examples=["tool"], description="tool, model, user, or tag: with the key of a tag.")
    zone: str = Field(examples=["Europe/Riga"])
    unit: Literal["hour", "day", "month"] = Field(examples=["day"])
    usages: Count
    cost: Amount = Field(examples=["7.224"])
    cost_before: Amount | None = Field(
        description="Of the whole span before; null where nothing was used in it.", examples=["6.5"]
    )
    not_counted_yet: Count = Field(description="The newest usages, which are not in it yet.", examples=[0])
    totals: list[SpentDocument]
    periods: list[PeriodDocument]


class EnabledDocument(BaseModel):
    """Whether AI is enabled for the workspace, and for the call that was asked about."""

    workspace_id: str = Field(examples=["acme"])
    enabled: bool = Field(examples=[True])
    status: Status = Field(examples=["sufficient"])
    budget: str = Field(
        default="", description="The hard budget that is used up; absent if none is.", examples=["search-team"]
    )


class LinkDocument(BaseModel):
    """A link that signs somebody in, once."""

    path: str = Field(examples=["/sign-in/eyJhbGciOi…"])


class ProblemDocument(BaseModel):
    """RFC 9457 problem details. The same for what is absent and for what is another account's, to the last byte."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is nothing here."])
