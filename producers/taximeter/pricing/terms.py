"""What pricing needs to know of a price: the fields of an entry, the rules for whole events, and the money's resolution.

The worker prices with the database's own entries, the SDK with those that the worker publishes; both fit `PriceEntry`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from typing import Final, NamedTuple, Protocol

PICO_PER_USD: Final = 10**12
AMOUNT_LIMIT: Final = 10**15 * PICO_PER_USD
"""A cost lies below this many picodollars: what the ledger can hold."""
DAY_SECONDS: Final = 86_400

FEE, MULTIPLIER, MINIMUM, MAXIMUM, MISSING = "@fee", "@multiplier", "@minimum", "@maximum", "@missing"
RULE_UNITS: Final = frozenset({FEE, MULTIPLIER, MINIMUM, MAXIMUM, MISSING})
"""Rules for whole events are entries of these units, whose names no event can use."""


class Target(NamedTuple):
    """What an entry is for: a tool, a provider's model, or both together; or, for a multiplier, a workspace."""

    tool: str | None
    provider: str | None
    model: str | None
    workspace: str | None = None


TargetKey = tuple[str | None, str | None, str | None, str | None]
"""A target as a plain tuple; equal to any named tuple of the same four."""


class PriceTier(Protocol):
    """`amount` beyond `above`."""

    @property
    def above(self) -> int: ...  # noqa: D102
    @property
    def amount(self) -> Decimal: ...  # noqa: D102


class PriceWindow(Protocol):
    """`amount` from `start` to `end`, in seconds of the UTC day."""

    @property
    def start(self) -> int: ...  # noqa: D102
    @property
    def end(self) -> int: ...  # noqa: D102
    @property
    def amount(self) -> Decimal: ...  # noqa: D102


class PriceEntry(Protocol):
    """One price of the book. docs/prices.md says what the fields mean."""

    @property
    def target(self) -> TargetKey: ...  # noqa: D102
    @property
    def unit(self) -> str: ...  # noqa: D102
    @property
    def amount(self) -> Decimal: ...  # noqa: D102
    @property
    def per(self) -> Decimal: ...  # noqa: D102
    @property
    def tiers(self) -> Sequence[PriceTier]: ...  # noqa: D102
    @property
    def daily(self) -> Sequence[PriceWindow]: ...  # noqa: D102
    @property
    def charge(self) -> str: ...  # noqa: D102
    @property
    def fallback(self) -> tuple[str, str] | None: ...  # noqa: D102
    @property
    def effective_from(self) -> dt.datetime | None: ...  # noqa: D102
    @property
    def effective_until(self) -> dt.datetime | None: ...  # noqa: D102
    @property
    def id(self) -> int: ...  # noqa: D102
    @property
    def revision(self) -> int: ...  # noqa: D102
    @property
    def source(self) -> str: ...  # noqa: D102
