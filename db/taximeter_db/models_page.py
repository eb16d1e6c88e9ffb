"""The page's tables: rollups of the usage log, readers, and the logs of changes and of operators' looks."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from taximeter_db.models import Base, Id, Money, Time


class UsageRollup(Base):
    """Usages of one tool and model recorded within one UTC quarter-hour; `model` is empty where an event named none.

    Derived from the log up to `RollupProgress.seq`, and may be made anew from it. Within a workspace the sequence
    numbers of two slots never overlap, so `first_seq` and `last_seq` also lead a filtered search past what cannot match.
    """

    __tablename__ = "usage_rollups"

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    slot: Mapped[dt.datetime] = mapped_column(Time, primary_key=True)
    tool: Mapped[str] = mapped_column(Id, primary_key=True)
    model: Mapped[str] = mapped_column(Id, primary_key=True)
    usages: Mapped[int] = mapped_column(BigInteger)
    cost: Mapped[Decimal] = mapped_column(Money)
    cost_max: Mapped[Decimal] = mapped_column(Money)
    first_seq: Mapped[int] = mapped_column(BigInteger)
    last_seq: Mapped[int] = mapped_column(BigInteger)


class RollupProgress(Base):
    """Up to which usage a workspace's log is in its rollups."""

    __tablename__ = "rollup_progress"

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger)


class UsageName(Base):
    """A tool and model that a workspace has used, as far as rolled up: what a filter can offer."""

    __tablename__ = "usage_names"

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    tool: Mapped[str] = mapped_column(Id, primary_key=True)
    model: Mapped[str] = mapped_column(Id, primary_key=True)


class StatusChange(Base):
    """A workspace's status changed: from what to what, under which limits, and what changed it. Append-only.

    ``cause`` is a usage, a payment or the settings; ``cause_seq`` and ``cause_id`` name it (for settings, who set them).
    ``entry`` numbers usages and payments together. Complete since ``LedgerState.status_changes_since``.
    """

    __tablename__ = "status_changes"
    __table_args__ = (
        CheckConstraint("cause IN ('usage', 'payment', 'settings')", name="cause"),
        CheckConstraint("status_before <> status_after", name="status"),
        Index("status_changes_workspace_id_changed_at_idx", "workspace_id", "changed_at", "id"),
    )

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    changed_at: Mapped[dt.datetime] = mapped_column(Time)
    status_before: Mapped[str] = mapped_column(Text)
    status_after: Mapped[str] = mapped_column(Text)
    balance_after: Mapped[Decimal] = mapped_column(Money)
    minimum_balance: Mapped[Decimal] = mapped_column(Money)
    low_balance_threshold: Mapped[Decimal] = mapped_column(Money)
    entry: Mapped[int] = mapped_column(BigInteger)
    cause: Mapped[str] = mapped_column(Text)
    cause_seq: Mapped[int | None] = mapped_column(BigInteger)
    cause_id: Mapped[str | None] = mapped_column(Text)


class WorkspaceChange(Base):
    """Who changed which setting of a workspace, and when. Append-only."""

    __tablename__ = "workspace_changes"

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    changed_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("clock_timestamp()"))
    changed_by: Mapped[str] = mapped_column(Text)
    field: Mapped[str] = mapped_column(Text)
    value_before: Mapped[str | None] = mapped_column(Text)
    value_after: Mapped[str | None] = mapped_column(Text)


class WorkspaceReader(Base):
    """A member of the staff who may look at a workspace; `member` is the subject of their token."""

    __tablename__ = "workspace_readers"
    __table_args__ = (CheckConstraint("char_length(member) BETWEEN 1 AND 255", name="member"),)

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    member: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)


class OperatorLook(Base):
    """A platform operator looked at a workspace. Append-only."""

    __tablename__ = "operator_looks"

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    looked_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("clock_timestamp()"))
    operator: Mapped[str] = mapped_column(Text)
    path: Mapped[str] = mapped_column(Text)


class UsedSignIn(Base):
    """A one-time sign-in link that was used; may be forgotten once it would have expired."""

    __tablename__ = "used_sign_ins"

    code: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    expires_at: Mapped[dt.datetime] = mapped_column(Time)
