"""The tables of the quarantine."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, LargeBinary, Text, text
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from taximeter_db.models.base import Base, Id, Time


class Quarantined(Base):
    """An event that could not be booked, kept whole with its reason until it is replayed or dismissed.

    ``digest`` identifies it, so that a redelivered message does not quarantine the same event twice: the bytes and, where they
    hold no event's id, ``properties``, what the sender gave with the message beside them. ``price_query`` is what the price book
    was asked for an event that waits for a price: see ``ledger.events.PriceQuery``.
    """

    __tablename__ = "quarantine"
    __table_args__ = (
        Index("quarantine_open_digest_idx", "digest", unique=True, postgresql_where=text("resolved_at IS NULL")),
        Index("quarantine_open_reason_idx", "reason", "id", postgresql_where=text("resolved_at IS NULL")),
        Index("quarantine_workspace_id_idx", "workspace_id", "id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    kind: Mapped[str] = mapped_column(Text)
    workspace_id: Mapped[str | None] = mapped_column(Id)
    event_id: Mapped[str | None] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    detail: Mapped[str] = mapped_column(Text)
    event: Mapped[bytes] = mapped_column(LargeBinary)
    content_type: Mapped[str | None] = mapped_column(Text)
    properties: Mapped[Any | None] = mapped_column(JSON)
    price_query: Mapped[Any | None] = mapped_column(JSONB)
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    received_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("now()"))
    resolved_at: Mapped[dt.datetime | None] = mapped_column(Time)
    resolution: Mapped[str | None] = mapped_column(Text)
    resolved_by: Mapped[str | None] = mapped_column(Text)
    resolution_note: Mapped[str | None] = mapped_column(Text)


class QuarantineAction(Base):
    """What somebody tried with a quarantined event, and what came of it. Append-only.

    ``correction`` is the event that was tried in the entry's place, byte for byte; the entry itself stays as received.
    """

    __tablename__ = "quarantine_actions"
    __table_args__ = (
        CheckConstraint("action IN ('replay', 'dismiss', 'erase')", "quarantine_actions_action_check"),
        CheckConstraint(
            "result IN ('booked', 'duplicate', 'kept', 'dismissed', 'erased')", "quarantine_actions_result_check"
        ),
        Index("quarantine_actions_entry_id_idx", "entry_id", "id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    entry_id: Mapped[int] = mapped_column(BigInteger)
    action: Mapped[str] = mapped_column(Text)
    result: Mapped[str] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    detail: Mapped[str | None] = mapped_column(Text)
    note: Mapped[str | None] = mapped_column(Text)
    correction: Mapped[bytes | None] = mapped_column(LargeBinary)
    done_by: Mapped[str] = mapped_column(Text)
    done_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("clock_timestamp()"))
