"""The table of the grants: payments whose credit expires."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import CheckConstraint, Index, SmallInteger, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from taximeter_db.models.base import Base, Id, Time


class Grant(Base):
    """Until when the credit of a promo can be used, and in which order. Its amount is that of the payment.

    ``settled_at`` is NULL until the rest was booked as an ``expiry``, or nothing was left to book.
    """

    __tablename__ = "grants"
    __table_args__ = (
        CheckConstraint("priority BETWEEN 0 AND 1000", name="priority"),
        Index(None, "expires_at", postgresql_where=text("settled_at IS NULL")),
    )

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    payment_id: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    expires_at: Mapped[dt.datetime] = mapped_column(Time)
    priority: Mapped[int] = mapped_column(SmallInteger)
    settled_at: Mapped[dt.datetime | None] = mapped_column(Time)
