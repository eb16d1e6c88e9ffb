"""The price book's tables: append-only, so that every receipt can be derived again for ever.

A usage stores the book's revision as its ``price_version``. The prices that made its cost are the entries with
``revision <= price_version`` that were effective at the event's time.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, Numeric, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from taximeter_db.models import Base, Id, Time

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

    ``tier_above[i]`` is a number of input tokens of the event; beyond it all units cost ``tier_amounts[i]``.
    ``effective_from`` NULL means: since the beginning of time.
    """

    __tablename__ = "price_entries"
    __table_args__ = (
        CheckConstraint(
            "(tool IS NOT NULL OR provider IS NOT NULL) AND (provider IS NULL) = (model IS NULL)", name="target"
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
            "unit",
            "effective_from",
            "revision",
            unique=True,
            postgresql_nulls_not_distinct=True,
        ),
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


class PriceAliases(Base):
    """The other names of priced models, as one catalogue knows them; its newest row counts, whole.

    `rules` is described in ``taximeter_worker.pricing.model_names``, which reads it.
    """

    __tablename__ = "price_aliases"

    catalogue: Mapped[str] = mapped_column(Id, primary_key=True)
    revision: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    rules: Mapped[dict[str, Any]] = mapped_column(JSONB)
