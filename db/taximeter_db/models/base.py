"""What all tables share: the declarative base, the schema, and the types of their columns.

Every unique key of a distributable table contains ``workspace_id`` (so that the schema spreads over Citus as it is),
money is ``numeric(27,12)``, times are ``timestamptz``. Workspace ids collate as bytes ("C"), so that PostgreSQL and
Python sort them alike: rows are locked in that order.
"""

from __future__ import annotations

from decimal import Context, Decimal, Inexact
from typing import Any, Final

from sqlalchemy import DateTime, Dialect, MetaData, Numeric, Table, Text
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator

SCHEMA: Final = "taximeter"

_EXACT = Context(prec=80, traps=[Inexact])
"""Wide enough for the sum of all amounts, and an error instead of a rounding."""


class Picodollars(TypeDecorator[int]):
    """An amount in USD: ``numeric(27,12)`` in PostgreSQL, an ``int`` of picodollars in Python, both ways.

    Sums, differences and `coalesce` of such columns are amounts again.
    """

    impl = Numeric(27, 12)
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Decimal | None:  # noqa: ARG002
        """From picodollars."""
        return None if value is None else Decimal(value).scaleb(-12, _EXACT)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        """To picodollars; decimal.Inexact if the value is finer than one."""
        if value is None:
            return None
        return int(_EXACT.quantize(_EXACT.scaleb(value, 12), Decimal(1)))


Money = Picodollars()
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


def table(model: type[Base]) -> Table:
    """The table that a model declares, for statements and COPY."""
    declared = model.__table__
    if not isinstance(declared, Table):
        raise TypeError(f"{model.__name__} declares no table")
    return declared
