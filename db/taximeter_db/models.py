"""The tables, declared. The migrations create them; a test holds the two together.

Conventions: every unique key of a distributable table contains ``workspace_id`` (so that the schema spreads over
Citus as it is), money is ``numeric(27,12)``, times are ``timestamptz``. Workspace ids collate as bytes ("C"), so that
PostgreSQL and Python sort them alike: rows are locked in that order.
"""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA = "taximeter"

Money = Numeric(27, 12)
Id = Text(collation="C")
Time = DateTime(timezone=True)


class Base(DeclarativeBase):
    """Declarative base: schema ``taximeter``, predictable constraint names."""

    metadata = MetaData(
        schema=SCHEMA,
        naming_convention={
            "pk": "%(table_name)s_pkey",
            "ck": "%(table_name)s_%(constraint_name)s_check",
            "ix": "%(table_name)s_%(column_0_N_name)s_idx",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
        },
    )


class Workspace(Base):
    """A tenant: its settings, its balance, and the counters that make pages and totals cheap.

    One row, because the update that debits it also locks it and returns its thresholds. ``usage_count`` is the last
    usage's ``seq``; ``version`` grows with every change and orders the flag writers. ``chain`` is the last link of the
    hash chain over the workspace's usages and payments (decision 0080), empty before the first.
    """

    __tablename__ = "workspaces"
    __table_args__ = (
        CheckConstraint("char_length(workspace_id) BETWEEN 1 AND 128", name="workspace_id"),
        # NaN is greater than every number in PostgreSQL, so the comparisons must name it.
        CheckConstraint("minimum_balance <= low_balance_threshold AND low_balance_threshold <> 'NaN'", name="limits"),
        CheckConstraint("balance = payment_total - usage_cost AND balance <> 'NaN'", name="balance"),
        CheckConstraint("octet_length(chain) IN (0, 32)", name="chain"),
        {"postgresql_with": {"fillfactor": "50"}},
    )

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    minimum_balance: Mapped[Decimal] = mapped_column(Money, server_default=text("-0.12"))
    low_balance_threshold: Mapped[Decimal] = mapped_column(Money, server_default=text("0"))
    balance: Mapped[Decimal] = mapped_column(Money, server_default=text("0"))
    usage_cost: Mapped[Decimal] = mapped_column(Money, server_default=text("0"))
    payment_total: Mapped[Decimal] = mapped_column(Money, server_default=text("0"))
    usage_count: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    payment_count: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    duplicate_count: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    chain: Mapped[bytes] = mapped_column(LargeBinary, server_default=text("''::bytea"))
    payload_key: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    created_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("now()"))
    updated_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("now()"))


class ChainStart(Base):
    """Where the chain of a workspace began that had a log before there were chains. Append-only."""

    __tablename__ = "chain_starts"

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    usage_count: Mapped[int] = mapped_column(BigInteger)
    payment_count: Mapped[int] = mapped_column(BigInteger)
    usage_cost: Mapped[Decimal] = mapped_column(Money)
    payment_total: Mapped[Decimal] = mapped_column(Money)
    chain: Mapped[bytes] = mapped_column(LargeBinary)
    started_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("now()"))


class UsageKey(Base):
    """Idempotency key of a usage, kept for ever, in a narrow table of its own.

    Deduplication must not depend on an event's own time, and a unique key of the time-partitioned log would.
    ``booked_at`` (start of the booking transaction) narrows a look-up by event id to a moment of the log.
    """

    __tablename__ = "usage_keys"

    event_key: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    fingerprint: Mapped[uuid.UUID] = mapped_column(Uuid)
    booked_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("now()"))


class Usage(Base):
    """A priced, debited usage. Append-only; partitioned by ``recorded_at``.

    ``seq`` numbers a workspace's usages from 1, ``entry`` its usages and payments together: the order in which its
    balance moved. ``recorded_at`` is one moment for all that a workspace's batch booked, and later than all before;
    ``link`` stands on the last row of such a batch, see `Workspace`. ``quantities`` is the very text that was hashed.
    """

    __tablename__ = "usages"
    __table_args__ = ({"postgresql_partition_by": "RANGE (recorded_at)"},)

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    entry: Mapped[int] = mapped_column(BigInteger)
    price_version: Mapped[int] = mapped_column(BigInteger)
    occurred_at: Mapped[dt.datetime] = mapped_column(Time)
    recorded_at: Mapped[dt.datetime] = mapped_column(Time, primary_key=True)
    cost: Mapped[Decimal] = mapped_column(Money)
    balance_after: Mapped[Decimal] = mapped_column(Money)
    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    event_id: Mapped[str] = mapped_column(Text)
    tool: Mapped[str] = mapped_column(Text)
    provider: Mapped[str | None] = mapped_column(Text)
    model: Mapped[str | None] = mapped_column(Text)
    quantities: Mapped[dict[str, Any]] = mapped_column(JSON)
    fingerprint: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    link: Mapped[bytes | None] = mapped_column(LargeBinary)


class UsagePayload(Base):
    """Input, output and metadata of a usage, apart from the narrow rows. Append-only; partitioned like the log.

    ``payload`` is a JSON object whose values are the bytes that came in (text columns could hold neither NUL nor lone
    surrogates). ``codec`` says how it is stored: see `taximeter_db.sealing`.
    """

    __tablename__ = "usage_payloads"
    __table_args__ = ({"postgresql_partition_by": "RANGE (recorded_at)"},)

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    recorded_at: Mapped[dt.datetime] = mapped_column(Time, primary_key=True)
    codec: Mapped[int] = mapped_column(SmallInteger)
    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    payload: Mapped[bytes] = mapped_column(LargeBinary)


class UsagePartition(Base):
    """The time slices of the usage log that exist; both partitioned tables share them."""

    __tablename__ = "usage_partitions"

    starts_at: Mapped[dt.datetime] = mapped_column(Time, primary_key=True)
    ends_at: Mapped[dt.datetime] = mapped_column(Time)


class Payment(Base):
    """A credit (or a negative adjustment) to a balance. Append-only."""

    __tablename__ = "payments"
    __table_args__ = (
        CheckConstraint("amount <> 'NaN' AND (amount > 0 OR kind = 'adjustment' AND amount < 0)", name="amount"),
        CheckConstraint("kind IN ('top_up', 'promo', 'refund', 'adjustment')", name="kind"),
        Index(None, "workspace_id", "seq", unique=True),
    )

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    payment_id: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger)
    entry: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(Text)
    amount: Mapped[Decimal] = mapped_column(Money)
    balance_after: Mapped[Decimal] = mapped_column(Money)
    transaction: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    note: Mapped[str | None] = mapped_column(Text)
    fingerprint: Mapped[uuid.UUID] = mapped_column(Uuid)
    occurred_at: Mapped[dt.datetime] = mapped_column(Time)
    recorded_at: Mapped[dt.datetime] = mapped_column(Time)
    link: Mapped[bytes | None] = mapped_column(LargeBinary)


class Quarantined(Base):
    """An event that could not be booked, kept whole with its reason until it is replayed or dismissed.

    ``digest`` identifies the bytes, so that a redelivered message does not park the same event twice.
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
        CheckConstraint("action IN ('replay', 'dismiss')", "quarantine_actions_action_check"),
        CheckConstraint("result IN ('booked', 'duplicate', 'kept', 'dismissed')", "quarantine_actions_result_check"),
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


class StaleFlag(Base):
    """A workspace whose flag could not be written to Redis when it was booked; a worker pays the debt later."""

    __tablename__ = "stale_flags"

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    noted_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("now()"))


class LedgerState(Base):
    """One row: the flags' epoch and the width of the log's partitions."""

    __tablename__ = "ledger_state"
    __table_args__ = (
        CheckConstraint("only_row", name="only_row"),
        CheckConstraint("partition_width IN ('day', 'week', 'month')", name="partition_width"),
    )

    only_row: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    epoch: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    partition_width: Mapped[str] = mapped_column(Text, server_default=text("'month'"))
    status_changes_since: Mapped[dt.datetime] = mapped_column(Time, server_default=text("now()"))
