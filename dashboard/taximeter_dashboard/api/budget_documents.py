"""The shapes of budgets in the JSON API: as they are set, and as they stand."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from taximeter_dashboard.api.documents import Amount, Count, Moment
from taximeter_db.budgets.terms import TEXT_MAX, THRESHOLDS, THRESHOLDS_MAX

BudgetText = Annotated[str, Field(min_length=1, max_length=TEXT_MAX, json_schema_extra={"format": "budget-text"})]


class BudgetDocument(BaseModel):
    """A budget, and where it stands in its present period."""

    name: str = Field(examples=["search-team"])
    limit: Amount = Field(examples=["20"])
    period: str = Field(description="`day`, `week`, `month`, `total` or `hours:N`.", examples=["day"])
    zone: str = Field(examples=["Europe/Riga"])
    user: str | None = Field(examples=["u-17"])
    tool: str | None = Field(examples=["chat"])
    model: str | None = Field(examples=["gpt-4o"])
    tag: str | None = Field(examples=["team=search"])
    soft: bool = Field(examples=[False])
    thresholds: list[int] = Field(examples=[[50, 80, 100]])
    spent: Amount = Field(examples=["4.21"])
    usages: Count
    percent: Count = Field(examples=[21])
    state: Literal["within", "warned", "exceeded"] = Field(examples=["within"])
    period_began_at: Moment | None
    period_ends_at: Moment | None


def _whole(value: object) -> object:
    """To JSON 50.0 is the integer 50."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class BudgetTermsDocument(BaseModel):
    """What a budget is to say; `PUT` sets all of it, and what is left out gets its default."""

    model_config = ConfigDict(extra="forbid", strict=True)

    limit: str = Field(pattern=r"^[0-9]{1,14}(\.[0-9]{1,12})?$", description="USD, exact", examples=["20"])
    period: str = Field(
        pattern=r"^(day|week|month|total|hours:([1-9][0-9]?|[1-6][0-9]{2}|7[0-3][0-9]|74[0-4]))$",
        description="`day`, `week`, `month`, `total` or `hours:N`, the last N hours.",
        examples=["day"],
    )
    zone: str = Field(
        default="UTC",
        max_length=64,
        description="Whose days are meant: an IANA name.",
        examples=["Europe/Riga"],
        json_schema_extra={"format": "time-zone"},
    )
    user: BudgetText | None = Field(default=None, examples=["u-17"])
    tool: BudgetText | None = Field(default=None, examples=["chat"])
    model: BudgetText | None = Field(default=None, examples=["gpt-4o"])
    tag: Annotated[str, Field(max_length=97, json_schema_extra={"format": "budget-tag"})] | None = Field(
        default=None, description="`KEY=VALUE`", examples=["team=search"]
    )
    soft: bool = Field(default=False, description="Warn only, and refuse no call.", examples=[False])
    thresholds: Annotated[
        list[Annotated[int, BeforeValidator(_whole), Field(ge=1, le=1_000)]],
        Field(min_length=1, max_length=THRESHOLDS_MAX, json_schema_extra={"uniqueItems": True}),
    ] = Field(default=list(THRESHOLDS), description="Percent of the limit at which to warn.", examples=[[50, 80, 100]])


class BudgetsDocument(BaseModel):
    """Budgets by name."""

    items: list[BudgetDocument]
    next: str | None = Field(description="Pass it as `after` for what follows; null at the end.", examples=["search"])
