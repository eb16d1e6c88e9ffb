"""The tables that booking writes: workspaces, idempotency keys, the usage log, payments."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Integer, LargeBinary, SmallInteger, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from taximeter_db.ledger import columns
from taximeter_db.models.base import Base, Id, Money, Time
from taximeter_db.money import MINIMUM_BALANCE_DEFAULT, format_usd


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
    minimum_balance: Mapped[int] = mapped_column(Money, server_default=text(format_usd(MINIMUM_BALANCE_DEFAULT)))
    low_balance_threshold: Mapped[int] = mapped_column(Money, server_default=text("0"))
    balance: Mapped[int] = mapped_column(Money, server_default=text("0"))
    usage_cost: Mapped[int] = mapped_column(Money, server_default=text("0"))
    payment_total: Mapped[int] = mapped_column(Money, server_default=text("0"))
    usage_count: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    payment_count: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    duplicate_count: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    chain: Mapped[bytes] = mapped_column(LargeBinary, server_default=text("''::bytea"))
    payload_key: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    created_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("now()"))
    updated_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("now()"))
    budgets: Mapped[str | None] = mapped_column(Text)
    """NULL: it never had a budget. Else the list, in JSON, of hard budgets that are used up, as its flag has it."""


class ChainStart(Base):
    """Where the chain of a workspace began that had a log before there were chains. Append-only."""

    __tablename__ = "chain_starts"

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    usage_count: Mapped[int] = mapped_column(BigInteger)
    payment_count: Mapped[int] = mapped_column(BigInteger)
    usage_cost: Mapped[int] = mapped_column(Money)
    payment_total: Mapped[int] = mapped_column(Money)
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
    ``link`` stands on the last row of such a batch, see `Workspace`. ``quantities`` and ``tags`` are the very text that was hashed.
    The labels, which end the table, are NULL where the event does not name them.
    """

    __tablename__ = "usages"
    __table_args__ = (
        *(Column(name, {"text": Text, "json": JSON}[kind]) for name, kind in columns.LABELS.items()),
        {"postgresql_partition_by": "RANGE (recorded_at)"},
    )

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    entry: Mapped[int] = mapped_column(BigInteger)
    price_version: Mapped[int] = mapped_column(BigInteger)
    occurred_at: Mapped[dt.datetime] = mapped_column(Time)
    recorded_at: Mapped[dt.datetime] = mapped_column(Time, primary_key=True)
    cost: Mapped[int] = mapped_column(Money)
    balance_after: Mapped[int] = mapped_column(Money)
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
    surrogates). ``codec`` says how it is stored: see `taximeter_db.crypto.payload_crypto`.
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
    """A movement of a balance that is not a usage. Append-only."""

    __tablename__ = "payments"
    __table_args__ = (
        CheckConstraint(
            "amount <> 'NaN' AND amount <> 0 AND CASE WHEN kind IN ('clawback', 'expiry') THEN amount < 0"
            " ELSE amount > 0 OR kind = 'adjustment' END",
            name="amount",
        ),
        CheckConstraint(
            "kind IN ('top_up', 'promo', 'refund', 'clawback', 'reinstated', 'expiry', 'adjustment')", name="kind"
        ),
        Index(None, "workspace_id", "seq", unique=True),
    )

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    payment_id: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger)
    entry: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(Text)
    amount: Mapped[int] = mapped_column(Money)
    balance_after: Mapped[int] = mapped_column(Money)
    transaction: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    note: Mapped[str | None] = mapped_column(Text)
    fingerprint: Mapped[uuid.UUID] = mapped_column(Uuid)
    occurred_at: Mapped[dt.datetime] = mapped_column(Time)
    recorded_at: Mapped[dt.datetime] = mapped_column(Time)
    link: Mapped[bytes | None] = mapped_column(LargeBinary)
