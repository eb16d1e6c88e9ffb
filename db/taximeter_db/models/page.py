"""The page's tables: rollups of the usage log, readers, and the logs of changes and of operators' looks."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Identity,
    Index,
    LargeBinary,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from taximeter_db.models.base import Base, Id, Money, Time


class UsageRollup(Base):
    """Usages of one tool, model and band of cost, recorded within one UTC quarter-hour and one block of the log.

    `model` is empty where an event named none; `band` counts the thresholds of `rollups.BANDS` that the cost reaches;
    `block` is ``seq / 1024``. `usages_total` and `cost_total` run on over all rows of the same tool, model and band: what
    fell into any period is the difference of two rows. Derived from the log up to `RollupProgress.seq`. A row holds at
    least one usage and spans at most 1,024, so it leads a filtered search to its next match within a bounded window.
    """

    __tablename__ = "usage_rollups"
    __table_args__ = (Index(None, "workspace_id", "slot", "last_seq"),)

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    tool: Mapped[str] = mapped_column(Id, primary_key=True)
    model: Mapped[str] = mapped_column(Id, primary_key=True)
    band: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    slot: Mapped[dt.datetime] = mapped_column(Time, primary_key=True)
    block: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    usages: Mapped[int] = mapped_column(BigInteger)
    cost: Mapped[int] = mapped_column(Money)
    usages_total: Mapped[int] = mapped_column(BigInteger)
    cost_total: Mapped[int] = mapped_column(Money)
    first_seq: Mapped[int] = mapped_column(BigInteger)
    last_seq: Mapped[int] = mapped_column(BigInteger)


class LabelRollup(Base):
    """Running totals of one user or one value of a tag, by UTC quarter-hour and block of the log, as `UsageRollup`'s.

    `label` is ``user``, or ``tag:`` and a tag's key; `value` is the user or the tag's text, and empty for all that bear
    the label. Derived from the log up to `RollupProgress.labels_seq`.
    """

    __tablename__ = "label_rollups"

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    label: Mapped[str] = mapped_column(Id, primary_key=True)
    value: Mapped[str] = mapped_column(Id, primary_key=True)
    slot: Mapped[dt.datetime] = mapped_column(Time, primary_key=True)
    block: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    usages_total: Mapped[int] = mapped_column(BigInteger)
    cost_total: Mapped[int] = mapped_column(Money)
    first_seq: Mapped[int] = mapped_column(BigInteger)
    last_seq: Mapped[int] = mapped_column(BigInteger)


class LabelTotal(Base):
    """A label and value that a workspace's usages bear, as far as rolled up: what they cost, and when first and last."""

    __tablename__ = "label_totals"
    __table_args__ = (Index(None, "workspace_id", "label", postgresql_where=text("value = ''")),)

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    label: Mapped[str] = mapped_column(Id, primary_key=True)
    value: Mapped[str] = mapped_column(Id, primary_key=True)
    usages: Mapped[int] = mapped_column(BigInteger)
    cost: Mapped[int] = mapped_column(Money)
    first_slot: Mapped[dt.datetime] = mapped_column(Time)
    last_slot: Mapped[dt.datetime] = mapped_column(Time)


class RollupProgress(Base):
    """Up to which usage a workspace's log is in its rollups; NULL: in those of labels, nobody has looked yet."""

    __tablename__ = "rollup_progress"

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger)
    labels_seq: Mapped[int | None] = mapped_column(BigInteger)


class UsageName(Base):
    """A tool, model and band of cost that a workspace has used, as far as rolled up: what a filter can offer."""

    __tablename__ = "usage_names"

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    tool: Mapped[str] = mapped_column(Id, primary_key=True)
    model: Mapped[str] = mapped_column(Id, primary_key=True)
    band: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)


class UsageIdPage(Base):
    """Up to 512 event ids of one run of 8,192 usages, sorted, with their numbers: what a search by an id's start reads.

    A run is written once, when it is whole; the ids of the newest usages are looked for in the log itself.
    """

    __tablename__ = "usage_id_pages"

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    run: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    low_id: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    high_id: Mapped[str] = mapped_column(Text(collation="C"))
    ids: Mapped[list[str]] = mapped_column(ARRAY(Text(collation="C")))
    seqs: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))


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
    balance_after: Mapped[int] = mapped_column(Money)
    minimum_balance: Mapped[int] = mapped_column(Money)
    low_balance_threshold: Mapped[int] = mapped_column(Money)
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


class ServiceToken(Base):
    """A token with which a program uses the JSON API, in one workspace; ``*`` stands for every one.

    `token_hash` is its SHA-256. A token for several workspaces has a row for each; a token that was revoked has none.
    """

    __tablename__ = "service_tokens"
    __table_args__ = (
        UniqueConstraint("token_hash", "workspace_id"),
        CheckConstraint("octet_length(token_hash) = 32", name="token_hash"),
        CheckConstraint("char_length(name) BETWEEN 1 AND 64", name="name"),
    )

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary)
    read_only: Mapped[bool] = mapped_column(Boolean)
    created_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("clock_timestamp()"))
    created_by: Mapped[str] = mapped_column(Text)


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


class Export(Base):
    """An export of a workspace's log: its progress, and afterwards who took what. `rows_total` is null where unknown.

    `ticket` is what the page that began it asks by; `filter` the address's query.
    """

    __tablename__ = "exports"
    __table_args__ = (CheckConstraint("state IN ('running', 'done', 'cancelled', 'failed')", name="state"),)

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    ticket: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    log: Mapped[str] = mapped_column(Text)
    format: Mapped[str] = mapped_column(Text)
    filter: Mapped[str] = mapped_column(Text)
    begun_by: Mapped[str] = mapped_column(Text)
    begun_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("clock_timestamp()"))
    moved_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("clock_timestamp()"))
    rows_total: Mapped[int | None] = mapped_column(BigInteger)
    rows_done: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    state: Mapped[str] = mapped_column(Text, server_default=text("'running'"))
