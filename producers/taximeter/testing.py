"""For the unit tests of a tool: a meter in memory, with the checks and errors of the real one.

from taximeter.testing import MemoryMeter

def test_the_answer_is_metered() -> None:
    meter = MemoryMeter()
    answer(meter, workspace="acme")
    assert meter.usages[0]["data"]["quantities"] == {"input_tokens": 1200, "output_tokens": 300}

def test_no_call_is_made_without_credit() -> None:
    meter = MemoryMeter()
    meter.set_status("acme", "insufficient")
    with pytest.raises(AIDisabled):
        answer(meter, workspace="acme")
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from decimal import ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING, Any, cast

from taximeter import limits, names
from taximeter.errors import ClosedError, ConfigurationError
from taximeter.events import check_workspace_id
from taximeter.flags.budgets import ANYONE, Caller, UsedUp, concerning
from taximeter.flags.cache import FlagCache, FlagStatus
from taximeter.holds.hold import Hold
from taximeter.holds.keeper import Keeper
from taximeter.holds.memory import CAP, MemoryHolds
from taximeter.meter import Meter
from taximeter.pricing.price_book import PriceBook
from taximeter.pricing.published import PublishedEntry
from taximeter.pricing.terms import Target
from taximeter.spool.pipeline import MeterStats, Pipeline, check_size

if TYPE_CHECKING:
    from taximeter.holds.server import HoldServer
    from taximeter.price_cache import PriceCache

STATUSES = (names.STATUS_SUFFICIENT, names.STATUS_LOW, names.STATUS_INSUFFICIENT)


class MemoryMeter(Meter):
    """A `taximeter.Meter` without a broker, a spool and Redis: what is recorded stays in `usages`.

    Every workspace may use AI until `set_status` says otherwise, has as much to hold as anybody asks until `set_balance` says
    how much, and no unit has a price until `set_price` gives it one. Nothing is booked: recording changes no balance, and a
    hold with which a usage was recorded stays.
    """

    def __init__(self, *, source: str | None = None, top_up_url: str | None = None) -> None:
        super().__init__(source=source, top_up_url=top_up_url)
        self._memory = _Memory()
        self._pipeline = cast("Pipeline", self._memory)
        self._statuses = _Statuses()
        self._flags = cast("FlagCache", self._statuses)
        self._holds = MemoryHolds()
        self._keeper = Keeper(cast("HoldServer", self._holds))
        self._entries: list[PublishedEntry] = []

    @property
    def usages(self) -> list[dict[str, Any]]:
        """The usage events recorded so far, as they would be published."""
        return self._memory.events(names.USAGE_TYPE)

    @property
    def payments(self) -> list[dict[str, Any]]:
        """The payment events published so far."""
        return self._memory.events(names.PAYMENT_TYPE)

    def clear(self) -> None:
        """Forget what was recorded, and what is held."""
        self._memory.lines.clear()
        self._holds.clear()

    def set_status(self, workspace_id: str, status: str) -> None:
        """Say how a workspace stands: ``"sufficient"``, ``"low"``, or ``"insufficient"``, which disables its AI."""
        if status not in STATUSES:
            raise ConfigurationError(f"status must be one of {', '.join(STATUSES)}, not {status!r}")
        self._statuses.known[check_workspace_id(workspace_id)] = status, datetime.now(UTC)

    def set_balance(
        self, workspace_id: str, balance: Decimal | str | int, *, minimum: Decimal | str | int = "-0.12"
    ) -> None:
        """Say what a workspace has, in USD, and how low it may fall: holds are granted within that."""
        beyond = (Decimal(balance) - Decimal(minimum)).scaleb(6).to_integral_value(ROUND_FLOOR)
        self._holds.balances[check_workspace_id(workspace_id)] = min(int(beyond), CAP)

    def set_price(
        self,
        unit: str,
        amount: Decimal | str | int,
        *,
        per: Decimal | str | int = 1,
        tool: str | None = None,
        provider: str | None = None,
        model: str | None = None,
    ) -> None:
        """Say what ``per`` of a unit cost, in USD: of a tool, or of a provider's model."""
        number = len(self._entries) + 1
        target = Target(tool, provider, model)
        self._entries.append(
            PublishedEntry(
                target=target, unit=unit, amount=Decimal(amount), per=Decimal(per), id=number, revision=number
            )
        )
        self._prices = cast("PriceCache", _Prices(PriceBook(number, self._entries)))

    def _price_cache(self) -> PriceCache:
        return cast("PriceCache", _Prices(PriceBook(0, [])))

    def _recording(self, workspace_id: str, hold: Hold | str) -> AbstractContextManager[None]:
        return (self._keeper or self._start_keeper()).recording(workspace_id, hold)

    def use_up_budget(
        self,
        workspace_id: str,
        name: str,
        *,
        user: str | None = None,
        tool: str | None = None,
        model: str | None = None,
        tag: tuple[str, str] | None = None,
    ) -> None:
        """Say that a hard budget is used up, and which calls it concerns."""
        budget = UsedUp(name=name, limit="0", period="total", user=user, tool=tool, model=model, tag=tag)
        self._statuses.budgets.setdefault(check_workspace_id(workspace_id), []).append(budget)

    def after_fork_in_child(self) -> None:
        """Nothing of it is the parent's alone."""

    def __del__(self) -> None:
        """Nothing is lost with it."""


class _Memory:
    is_running = False

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self._recorded = 0
        self._closed = False

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in map(json.loads, self.lines) if event["type"] == kind]

    def put(self, _routing_key: str, line: bytes) -> None:
        check_size(line, limits.EVENT_BYTES_MAX)
        self._check_open()
        self.lines.append(line)
        self._recorded += 1

    def flush(self, _timeout_seconds: float) -> None:
        self._check_open()

    def stats(self) -> MeterStats:
        return MeterStats(0, 0, None, self._recorded, self._recorded, self._recorded, 0, None)

    def close(self, _timeout_seconds: float) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the meter is closed; make a new one")


class _Prices:
    def __init__(self, book: PriceBook) -> None:
        self._book = book

    def book(self) -> PriceBook:
        return self._book

    def close(self) -> None:
        """Nothing is held."""


class _Statuses:
    def __init__(self) -> None:
        self.known: dict[str, tuple[str, datetime]] = {}
        self.budgets: dict[str, list[UsedUp]] = {}

    def enabled(self, workspace_id: str, caller: Caller = ANYONE) -> bool:
        status, _ = self.known.get(workspace_id, (names.STATUS_SUFFICIENT, None))
        return status != names.STATUS_INSUFFICIENT and self.used_up(workspace_id, caller) is None

    def used_up(self, workspace_id: str, caller: Caller) -> UsedUp | None:
        return concerning(self.budgets.get(workspace_id, ()), caller)

    def status(self, workspace_id: str) -> FlagStatus:
        status, since = self.known.get(workspace_id, (names.STATUS_SUFFICIENT, None))
        return FlagStatus(workspace_id, status, self.enabled(workspace_id), since, 0.0)

    def close(self, *, wait: bool = True) -> None:
        """Nothing is held."""
