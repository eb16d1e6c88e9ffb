"""The tables of the statements: closed months, and in which time zone a workspace's months begin."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Date, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.orm import Mapped, mapped_column

from taximeter_db.models.base import Base, Id, Money, Time


class Statement(Base):
    """A month's account that is closed. Append-only.

    It covers the usages and payments that were recorded from ``starts_at`` up to ``ends_at``, which the four numbers name too
    (``last`` is ``first - 1`` where there was none). Each begins where the one before it ends, in time, in numbers and in
    balance, whatever zone the workspace had meanwhile. ``lines`` is a `taximeter_db.statements.reading.Lines`.
    """

    __tablename__ = "statements"
    __table_args__ = (
        UniqueConstraint("workspace_id", "month", name="statements_workspace_id_month_key"),
        CheckConstraint("number >= 1", name="number"),
        CheckConstraint("extract(day FROM month) = 1 AND starts_at < ends_at AND ends_at <= closed_at", name="month"),
        CheckConstraint("opening + payments - usage = closing AND closing <> 'NaN'", name="closing"),
        CheckConstraint(
            "usage_first >= 1 AND usage_last >= usage_first - 1"
            " AND payment_first >= 1 AND payment_last >= payment_first - 1",
            name="entries",
        ),
    )

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    month: Mapped[dt.date] = mapped_column(Date)
    zone: Mapped[str] = mapped_column(Text)
    starts_at: Mapped[dt.datetime] = mapped_column(Time)
    ends_at: Mapped[dt.datetime] = mapped_column(Time)
    opening: Mapped[int] = mapped_column(Money)
    payments: Mapped[int] = mapped_column(Money)
    usage: Mapped[int] = mapped_column(Money)
    closing: Mapped[int] = mapped_column(Money)
    usage_first: Mapped[int] = mapped_column(BigInteger)
    usage_last: Mapped[int] = mapped_column(BigInteger)
    payment_first: Mapped[int] = mapped_column(BigInteger)
    payment_last: Mapped[int] = mapped_column(BigInteger)
    lines: Mapped[dict[str, Any]] = mapped_column(JSON)
    closed_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("clock_timestamp()"))


class StatementZone(Base):
    """In which time zone a workspace's months begin; UTC where there is no row."""

    __tablename__ = "statement_zones"
    __table_args__ = (CheckConstraint("char_length(zone) BETWEEN 1 AND 64", name="zone"),)

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    zone: Mapped[str] = mapped_column(Text)
