"""The shapes of the JSON API's answers, for the OpenAPI document and for the reader."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

Amount = Annotated[str, Field(pattern=r"^-?[0-9]+(\.[0-9]{1,12})?$", examples=["0.0007625"], description="USD, exact")]
Status = Literal["sufficient", "low", "insufficient"]


class SummaryDocument(BaseModel):
    """A workspace at a glance; payment_total - usage_cost = balance, to the last digit."""

    workspace_id: str = Field(examples=["acme"])
    status: Status
    enabled: bool
    balance: Amount
    minimum_balance: Amount
    low_balance_threshold: Amount
    remaining: Amount = Field(description="Balance minus minimum: what is left until AI stops. Negative once it has.")
    usage_count: int
    usage_cost: Amount
    payment_count: int
    payment_total: Amount
    updated_at: dt.datetime | None


class UsageDocument(BaseModel):
    """A booked usage."""

    seq: int = Field(description="Number within the workspace, from 1 without a gap, in the order of booking.")
    event_id: str
    tool: str
    provider: str | None
    model: str | None
    quantities: dict[str, float] = Field(examples=[{"input_tokens": 1200, "output_tokens": 300}])
    cost: Amount
    balance_after: Amount
    occurred_at: dt.datetime
    recorded_at: dt.datetime
    price_version: int
    estimated: bool = Field(description="Whether a policy for missing prices gave the price.")


class UsageDetailsDocument(UsageDocument):
    """A booked usage with all that is known of it."""

    receipt: dict[str, Any] | None = Field(description="How the cost came about; null where it cannot be derived.")
    contents: dict[str, Any] | None = Field(description="input, output and metadata, as far as given.")


class PaymentDocument(BaseModel):
    """A booked payment."""

    seq: int
    payment_id: str
    kind: Literal["top_up", "promo", "refund", "adjustment"]
    amount: Amount
    balance_after: Amount
    transaction: dict[str, str] | None
    note: str | None
    occurred_at: dt.datetime
    recorded_at: dt.datetime


class UsagesDocument(BaseModel):
    """A page of usages."""

    items: list[UsageDocument]
    next: str | None = Field(description="Pass it as `cursor` for what follows; null at the end.")
    total: int


class PaymentsDocument(BaseModel):
    """A page of payments."""

    items: list[PaymentDocument]
    next: str | None = Field(description="Pass it as `cursor` for what follows; null at the end.")
    total: int


class EnabledDocument(BaseModel):
    """Whether AI is enabled for the workspace."""

    workspace_id: str
    enabled: bool
    status: Status


class LinkDocument(BaseModel):
    """A link that signs somebody in, once."""

    path: str = Field(examples=["/sign-in/eyJhbGciOi…"])


class ProblemDocument(BaseModel):
    """RFC 9457 problem details. The same for what is absent and for what is another account's, to the last byte."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


def _problems(texts: dict[int, tuple[str, str, str]]) -> dict[int | str, dict[str, Any]]:
    """Answers for the OpenAPI document: from status to description, title and a detail such as comes with it."""
    reference = {"$ref": "#/components/schemas/ProblemDocument"}
    return {
        status: {
            "description": words,
            "content": {
                "application/problem+json": {
                    "schema": reference,
                    "example": {"type": "about:blank", "title": title, "status": status, "detail": detail},
                }
            },
        }
        for status, (words, title, detail) in texts.items()
    }


_TEXTS = {
    400: (
        "A cursor of another list, or none of ours",
        "Bad cursor",
        "This cursor does not belong to this list. Begin again without it.",
    ),
    401: ("Nobody is signed in, or the token does not hold", "Sign in needed", "Sign in to see this."),
    403: (
        "A member of the staff whom no owner allowed to look",
        "Not allowed",
        "Only the owner and people they allow can see this.",
    ),
    404: (
        "Absent, or another account's",
        "Not found",
        "There is nothing here. The address may be mistyped, or be another account's.",
    ),
    422: ("A parameter that cannot be read", "Not valid", "limit: Input should be less than or equal to 100."),
    503: (
        "The ledger, or the service that signs people in, cannot be reached",
        "Not available",
        "The ledger cannot be reached at the moment. Nothing is lost; try again.",
    ),
}
PROBLEMS = _problems(_TEXTS)
WRITE_PROBLEMS = _problems(
    {
        401: _TEXTS[401],
        403: (
            "A write that may have come from another site",
            "Not allowed",
            "This request came from another site and was refused.",
        ),
        503: _TEXTS[503],
    }
)
