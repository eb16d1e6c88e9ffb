"""The tables of the flags: debts to Redis, and the epoch."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import BigInteger, CheckConstraint, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from taximeter_db.models.base import Base, Id, Time


class StaleFlag(Base):
    """A workspace whose flag could not be written to Redis when it was booked; a worker pays the debt later."""

    __tablename__ = "stale_flags"

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    noted_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("now()"))


class LedgerState(Base):
    """One row: the flags' epoch, the width of the log's partitions, the name of the master key that workers must know."""

    __tablename__ = "ledger_state"
    __table_args__ = (
        CheckConstraint("only_row", name="only_row"),
        CheckConstraint("partition_width IN ('day', 'week', 'month')", name="partition_width"),
    )

    only_row: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    epoch: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    partition_width: Mapped[str] = mapped_column(Text, server_default=text("'month'"))
    status_changes_since: Mapped[dt.datetime] = mapped_column(Time, server_default=text("now()"))
    master_key: Mapped[str | None] = mapped_column(Text)
    labels_since: Mapped[dt.datetime] = mapped_column(Time, server_default=text("now()"))
