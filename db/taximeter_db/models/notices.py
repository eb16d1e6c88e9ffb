"""The tables of notices: who gets them, the outbox that booking writes, and what became of each."""

from __future__ import annotations

import datetime as dt
import uuid

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Identity, Index, Integer, LargeBinary, Text, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from taximeter_db.models.base import Base, Id, Time


class NoticeTarget(Base):
    """Where notices of a workspace go; ``*`` stands for every workspace.

    `address` and the secrets are as `notices.sealing` stores them: encrypted by the master key named `master`, or as they
    are where there is none. `shown` tells people which target it is, and nothing that is secret. `types` is None for all.
    `failures` counts those in a row; before `retry_at` nobody tries again.
    """

    __tablename__ = "notice_targets"
    __table_args__ = (
        CheckConstraint("channel IN ('webhook', 'apprise')", name="channel"),
        CheckConstraint("(secret IS NOT NULL) = (channel = 'webhook')", name="secret"),
        CheckConstraint("quiet_seconds >= 0", name="quiet_seconds"),
    )

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    target_id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    channel: Mapped[str] = mapped_column(Text)
    shown: Mapped[str] = mapped_column(Text)
    address: Mapped[bytes] = mapped_column(LargeBinary)
    secret: Mapped[bytes | None] = mapped_column(LargeBinary)
    secret_before: Mapped[bytes | None] = mapped_column(LargeBinary)
    secret_before_until: Mapped[dt.datetime | None] = mapped_column(Time)
    master: Mapped[str | None] = mapped_column(Text)
    types: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    allow_private: Mapped[bool] = mapped_column(Boolean)
    quiet_seconds: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("clock_timestamp()"))
    created_by: Mapped[str] = mapped_column(Text)
    disabled_at: Mapped[dt.datetime | None] = mapped_column(Time)
    disabled_why: Mapped[str | None] = mapped_column(Text)
    failures: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    retry_at: Mapped[dt.datetime | None] = mapped_column(Time)


class Notice(Base):
    """A notice, written in the transaction that caused it; `body` is sent as it is.

    `notice_id` orders those of a workspace: whoever writes one holds the workspace's row. `subject` names what changed its
    `state` (the workspace's status, a budget); both are None for what has none, such as a payment.
    """

    __tablename__ = "notices"

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    notice_id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    public_id: Mapped[uuid.UUID] = mapped_column(Uuid, server_default=text("gen_random_uuid()"))
    type: Mapped[str] = mapped_column(Text)
    subject: Mapped[str | None] = mapped_column(Id)
    state: Mapped[str | None] = mapped_column(Text)
    body: Mapped[str] = mapped_column(Text)
    happened_at: Mapped[dt.datetime] = mapped_column(Time)


class NoticeDelivery(Base):
    """A notice on its way to one target, or where that ended. Before `held_until` a flapping state is not sent again."""

    __tablename__ = "notice_deliveries"
    __table_args__ = (
        CheckConstraint("state IN ('pending', 'delivered', 'superseded', 'dead')", name="state"),
        CheckConstraint("(state = 'pending') = (ended_at IS NULL)", name="ended"),
        Index(
            "notice_deliveries_pending_idx",
            "workspace_id",
            "target_id",
            "notice_id",
            postgresql_where=text("state = 'pending'"),
        ),
        Index(
            "notice_deliveries_dead_idx",
            "workspace_id",
            "target_id",
            "notice_id",
            postgresql_where=text("state = 'dead'"),
        ),
    )

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    target_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    notice_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    state: Mapped[str] = mapped_column(Text, server_default=text("'pending'"))
    tries: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    queued_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("clock_timestamp()"))
    held_until: Mapped[dt.datetime | None] = mapped_column(Time)
    ended_at: Mapped[dt.datetime | None] = mapped_column(Time)


class NoticeLane(Base):
    """A workspace's notices to one target, which go one after another: whoever delivers them holds the lease.

    `due_at` is when to look next, None where nothing is pending; never before `retry_at`, the end of a back-off.
    """

    __tablename__ = "notice_lanes"
    __table_args__ = (Index(None, "due_at", postgresql_where=text("due_at IS NOT NULL")),)

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    target_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    due_at: Mapped[dt.datetime | None] = mapped_column(Time)
    retry_at: Mapped[dt.datetime | None] = mapped_column(Time)
    lease: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    leased_until: Mapped[dt.datetime | None] = mapped_column(Time)


class MissingPrice(Base):
    """What had no price when its notice was last written: `provider` and `model` are empty where an event named none."""

    __tablename__ = "missing_prices"

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    tool: Mapped[str] = mapped_column(Id, primary_key=True)
    provider: Mapped[str] = mapped_column(Id, primary_key=True)
    model: Mapped[str] = mapped_column(Id, primary_key=True)
    revision: Mapped[int] = mapped_column(BigInteger)
    noted_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("clock_timestamp()"))


class NoticeTry(Base):
    """One try to deliver a notice: `outcome` is ``delivered``, ``failed``, ``refused`` or ``gone``; `detail` a sentence."""

    __tablename__ = "notice_tries"
    __table_args__ = (Index("notice_tries_notice_id_target_id_idx", "workspace_id", "notice_id", "target_id"),)

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    target_id: Mapped[int] = mapped_column(BigInteger)
    notice_id: Mapped[int] = mapped_column(BigInteger)
    tried_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("clock_timestamp()"))
    outcome: Mapped[str] = mapped_column(Text)
    detail: Mapped[str] = mapped_column(Text)
    milliseconds: Mapped[int] = mapped_column(Integer)
