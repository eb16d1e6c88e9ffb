"""The tables of the budgets: the limits, what was spent in each slice of time, and when a limit was crossed."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Identity, Index, Integer, Text, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from taximeter_db.models.base import Base, Id, Money, Time


class Budget(Base):
    """What a part of a workspace's usage may cost in a period.

    A usage counts where it bears each of ``user_id``, ``tool``, ``model`` and ``tag`` that is not NULL; ``selector`` is one of them,
    by which booking finds the budget. ``reached`` (the highest threshold, in percent) and ``exceeded`` speak of the period that
    begins with ``window_start``; where anything is reached, ``due_at`` says when the period's end must be looked at. What fell into
    buckets before ``counted_from`` was never counted.
    """

    __tablename__ = "budgets"
    __table_args__ = (
        CheckConstraint("char_length(name) BETWEEN 1 AND 64", name="name"),
        CheckConstraint("amount >= 0 AND amount < 1000000000000000", name="amount"),
        CheckConstraint(
            "period IN ('day', 'week', 'month', 'total', 'hours') AND (period = 'hours') = (hours > 0)"
            " AND hours BETWEEN 0 AND 744",
            name="period",
        ),
        CheckConstraint("(tag IS NULL) = (tag_value IS NULL)", name="tag"),
        CheckConstraint("array_position(thresholds, NULL) IS NULL AND 0 < ALL (thresholds)", name="thresholds"),
        Index(None, "workspace_id", "selector"),
        Index(None, "due_at", postgresql_where=text("due_at IS NOT NULL")),
    )

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(Id, primary_key=True)
    amount: Mapped[int] = mapped_column(Money)
    period: Mapped[str] = mapped_column(Text)
    hours: Mapped[int] = mapped_column(Integer)
    zone: Mapped[str] = mapped_column(Text)
    user_id: Mapped[str | None] = mapped_column(Id)
    tool: Mapped[str | None] = mapped_column(Id)
    model: Mapped[str | None] = mapped_column(Id)
    tag: Mapped[str | None] = mapped_column(Id)
    tag_value: Mapped[str | None] = mapped_column(Id)
    selector: Mapped[str] = mapped_column(Id)
    hard: Mapped[bool] = mapped_column(Boolean)
    thresholds: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    counted_from: Mapped[dt.datetime] = mapped_column(Time)
    window_start: Mapped[dt.datetime] = mapped_column(Time)
    reached: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    exceeded: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    due_at: Mapped[dt.datetime | None] = mapped_column(Time)
    created_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("clock_timestamp()"))


class BudgetSpending(Base):
    """What the usages of one slice of time cost that count for a budget, by when they happened; see ``budget_bucket``."""

    __tablename__ = "budget_spending"

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(Id, primary_key=True)
    bucket: Mapped[dt.datetime] = mapped_column(Time, primary_key=True)
    cost: Mapped[int] = mapped_column(Money)
    usages: Mapped[int] = mapped_column(BigInteger)


class BudgetCrossing(Base):
    """A budget reached a threshold, was exceeded or was restored: when, at what spending, and why. Append-only.

    ``cause_id`` is the event id of the usage that crossed, or who changed the settings.
    """

    __tablename__ = "budget_crossings"
    __table_args__ = (
        CheckConstraint("kind IN ('warned', 'exceeded', 'restored')", name="kind"),
        CheckConstraint("cause IN ('usage', 'period', 'settings', 'repricing')", name="cause"),
    )

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    crossed_at: Mapped[dt.datetime] = mapped_column(Time)
    name: Mapped[str] = mapped_column(Id)
    kind: Mapped[str] = mapped_column(Text)
    percent: Mapped[int] = mapped_column(Integer)
    spent: Mapped[int] = mapped_column(Money)
    amount: Mapped[int] = mapped_column(Money)
    hard: Mapped[bool] = mapped_column(Boolean)
    cause: Mapped[str] = mapped_column(Text)
    cause_id: Mapped[str | None] = mapped_column(Text)
