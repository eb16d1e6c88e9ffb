"""The tables of data keys and of erasures."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, Integer, LargeBinary, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from taximeter_db.models.base import Base, Id, Time


class WorkspaceKey(Base):
    """A workspace's data key, wrapped by the master key named ``master``; without ``wrapped`` once it was erased.

    ``workspaces.payload_key`` is the ``number`` of the one that new payloads are encrypted with.
    """

    __tablename__ = "workspace_keys"
    __table_args__ = (
        CheckConstraint("(wrapped IS NULL) = (erased_at IS NOT NULL)", name="erased"),
        Index(
            "workspace_keys_master_idx",
            "master",
            "workspace_id",
            "number",
            postgresql_where=text("wrapped IS NOT NULL"),
        ),
    )

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    wrapped: Mapped[bytes | None] = mapped_column(LargeBinary)
    master: Mapped[str] = mapped_column(Text)
    created_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("now()"))
    erased_at: Mapped[dt.datetime | None] = mapped_column(Time)


class PayloadErasure(Base):
    """Who erased the contents of a workspace's events, when, and how much it was. Append-only."""

    __tablename__ = "payload_erasures"

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    erased_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("clock_timestamp()"))
    erased_by: Mapped[str] = mapped_column(Text)
    keys: Mapped[int] = mapped_column(Integer)
    usages: Mapped[int] = mapped_column(BigInteger)
    quarantined: Mapped[int] = mapped_column(BigInteger)
