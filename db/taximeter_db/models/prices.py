"""The price book's tables: append-only, so that every receipt can be derived again for ever.

A usage stores the book's revision as its ``price_version``. The prices that made its cost are the entries with
``revision <= price_version`` that were effective at the event's time.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, Integer, LargeBinary, Numeric, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from taximeter_db.models.base import Base, Id, Money, Time

Exact = Numeric()
"""Without precision: PostgreSQL keeps the digits as given, 2.50 stays 2.50."""


class PriceRevision(Base):
    """One change of the book: a price set by hand, or a whole import."""

    __tablename__ = "price_revisions"

    revision: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    created_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("now()"))
    reason: Mapped[str] = mapped_column(Text)


class PriceEntry(Base):
    """A price of one unit of one target, from a moment on: `amount` USD per `per` units.

    Beyond ``tier_above[i]`` (of a flat price: input tokens of the event; else: the unit's own quantity) the amount is
    ``tier_amounts[i]``. From second ``daily_from[i]`` of the UTC day until ``daily_until[i]`` it is
    ``daily_amounts[i]``. ``effective_from`` NULL means: since the beginning of time.
    Rules for whole events are entries of the units ``@fee``, ``@multiplier``, ``@minimum``, ``@maximum`` and
    ``@missing``; what they mean is in ``taximeter_db.prices_terms``.
    """

    __tablename__ = "price_entries"
    __table_args__ = (
        CheckConstraint(
            "(tool IS NOT NULL OR provider IS NOT NULL OR workspace_id IS NOT NULL)"
            " AND (provider IS NULL) = (model IS NULL)"
            " AND (workspace_id IS NULL OR (provider IS NULL AND unit = '@multiplier'))",
            name="target",
        ),
        CheckConstraint("effective_until > effective_from", name="until"),
        CheckConstraint(
            "CASE WHEN unit = '@missing' THEN charge IN ('quarantine', 'estimate', 'free')"
            " ELSE charge IN ('flat', 'package', 'graduated', 'volume') END",
            name="charge",
        ),
        CheckConstraint(
            "(fallback_provider IS NULL) = (fallback_model IS NULL)"
            " AND (fallback_provider IS NULL) = (charge <> 'estimate')",
            name="fallback",
        ),
        CheckConstraint(
            "cardinality(daily_from) = cardinality(daily_until) AND cardinality(daily_from) = cardinality(daily_amounts)"
            " AND array_position(daily_from, NULL) IS NULL AND array_position(daily_until, NULL) IS NULL"
            " AND array_position(daily_amounts, NULL) IS NULL AND 0 <= ALL (daily_from) AND 86400 >= ALL (daily_until)"
            " AND 0 <= ALL (daily_amounts) AND 'Infinity' > ALL (daily_amounts)",
            name="daily",
        ),
        CheckConstraint(
            "char_length(tool) BETWEEN 1 AND 256 AND char_length(provider) BETWEEN 1 AND 256"
            " AND char_length(model) BETWEEN 1 AND 256 AND char_length(unit) BETWEEN 1 AND 64",
            name="text",
        ),
        # NaN is greater than Infinity in PostgreSQL: the upper bound refuses both.
        CheckConstraint("amount >= 0 AND amount < 'Infinity'", name="amount"),
        CheckConstraint("per > 0 AND per < 'Infinity'", name="per"),
        CheckConstraint(
            "cardinality(tier_above) = cardinality(tier_amounts) AND array_position(tier_above, NULL) IS NULL"
            " AND array_position(tier_amounts, NULL) IS NULL AND 0 <= ALL (tier_above)"
            " AND 0 <= ALL (tier_amounts) AND 'Infinity' > ALL (tier_amounts)",
            name="tiers",
        ),
        Index(
            "price_entries_version_idx",
            "tool",
            "provider",
            "model",
            "workspace_id",
            "unit",
            "effective_from",
            "revision",
            unique=True,
            postgresql_nulls_not_distinct=True,
        ),
        Index("price_entries_revision_idx", "revision"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    revision: Mapped[int] = mapped_column(BigInteger)
    effective_from: Mapped[dt.datetime | None] = mapped_column(Time)
    amount: Mapped[Decimal] = mapped_column(Exact)
    per: Mapped[Decimal] = mapped_column(Exact)
    tool: Mapped[str | None] = mapped_column(Id)
    provider: Mapped[str | None] = mapped_column(Id)
    model: Mapped[str | None] = mapped_column(Id)
    unit: Mapped[str] = mapped_column(Id)
    tier_above: Mapped[list[int]] = mapped_column(ARRAY(BigInteger), server_default=text("'{}'"))
    tier_amounts: Mapped[list[Decimal]] = mapped_column(ARRAY(Exact), server_default=text("'{}'"))
    source: Mapped[str] = mapped_column(Text)
    workspace_id: Mapped[str | None] = mapped_column(Id)
    effective_until: Mapped[dt.datetime | None] = mapped_column(Time)
    charge: Mapped[str] = mapped_column(Text, server_default=text("'flat'"))
    daily_from: Mapped[list[int]] = mapped_column(ARRAY(Integer), server_default=text("'{}'"))
    daily_until: Mapped[list[int]] = mapped_column(ARRAY(Integer), server_default=text("'{}'"))
    daily_amounts: Mapped[list[Decimal]] = mapped_column(ARRAY(Exact), server_default=text("'{}'"))
    fallback_provider: Mapped[str | None] = mapped_column(Id)
    fallback_model: Mapped[str | None] = mapped_column(Id)


class PriceLink(Base):
    """The hash chain over the revisions of the price book. The database writes it, when a revision is committed."""

    __tablename__ = "price_links"
    __table_args__ = (CheckConstraint("octet_length(link) = 32", name="link"),)

    revision: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    link: Mapped[bytes] = mapped_column(LargeBinary)


class PriceAliases(Base):
    """The other names of priced models, as one catalogue knows them; its newest row counts, whole.

    `rules` is described in ``taximeter.pricing.model_names``, which reads it.
    """

    __tablename__ = "price_aliases"

    catalogue: Mapped[str] = mapped_column(Id, primary_key=True)
    revision: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    rules: Mapped[dict[str, Any]] = mapped_column(JSONB)


class Repricing(Base):
    """A run that posted adjustments: which usages it looked at, by which revision of the book, and why."""

    __tablename__ = "repricings"

    repricing: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    created_at: Mapped[dt.datetime] = mapped_column(Time, server_default=text("now()"))
    created_by: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    revision: Mapped[int] = mapped_column(BigInteger)
    since: Mapped[dt.datetime] = mapped_column(Time)
    until: Mapped[dt.datetime | None] = mapped_column(Time)
    tool: Mapped[str | None] = mapped_column(Text)
    workspace_id: Mapped[str | None] = mapped_column(Id)


class RepricedWorkspace(Base):
    """What one run posted for one workspace; `payment_id` is NULL where old and new costs add up to the same."""

    __tablename__ = "repriced_workspaces"

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    repricing: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    usages: Mapped[int] = mapped_column(BigInteger)
    old_cost: Mapped[int] = mapped_column(Money)
    new_cost: Mapped[int] = mapped_column(Money)
    payment_id: Mapped[str | None] = mapped_column(Text)


class RepricedUsage(Base):
    """The list behind an adjustment. What a usage costs in the end is its newest `new_cost`, if it has any."""

    __tablename__ = "repriced_usages"

    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    repricing: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    old_cost: Mapped[int] = mapped_column(Money)
    new_cost: Mapped[int] = mapped_column(Money)
