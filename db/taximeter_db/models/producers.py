"""The table of the keys of those who publish through the HTTP gateway."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import CheckConstraint, Index, Integer, LargeBinary, Text, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from taximeter_db.models.base import Base, Id, Time


class ProducerKey(Base):
    """A key of the gateway by its SHA-256, and what it may publish: ``workspaces`` and ``tools`` are None for all.

    A revoked key stays, so that the list says who could publish when; its name is free again.
    """

    __tablename__ = "producer_keys"
    __table_args__ = (
        CheckConstraint("octet_length(key_hash) = 32", name="key_hash"),
        CheckConstraint("kinds <> '{}' AND kinds <@ ARRAY['usage', 'payment']", name="kinds"),
        CheckConstraint("events_per_second > 0", name="events_per_second"),
        Index("producer_keys_name_idx", "name", unique=True, postgresql_where=text("revoked_at IS NULL")),
    )

    key_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    name: Mapped[str] = mapped_column(Id)
    workspaces: Mapped[list[str] | None] = mapped_column(ARRAY(Id))
    tools: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    kinds: Mapped[list[str]] = mapped_column(ARRAY(Text))
    events_per_second: Mapped[int | None] = mapped_column(Integer)
    created_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("now()"))
    created_by: Mapped[str] = mapped_column(Text)
    revoked_at: Mapped[dt.datetime | None] = mapped_column(Time)
