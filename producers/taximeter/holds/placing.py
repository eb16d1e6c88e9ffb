"""`Holds`: what a `Meter` does about holds."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal, cast

from taximeter import limits
from taximeter.addresses import REDIS_URL_VARIABLE
from taximeter.calls.metering import require_budget
from taximeter.errors import (
    ClosedError,
    ConfigurationError,
    HoldsUnavailableError,
    InsufficientCredit,
    InvalidEventError,
    TaximeterError,
)
from taximeter.events import check_workspace_id
from taximeter.flags.budgets import ANYONE, Caller
from taximeter.flags.cache import FlagSettings, FlagStatus
from taximeter.holds.amounts import to_microdollars, to_usd
from taximeter.holds.hold import OPEN, Hold
from taximeter.ids import new_event_id
from taximeter.price_cache import Prices

if TYPE_CHECKING:
    from taximeter.holds.keeper import Keeper
    from taximeter.holds.slices import Slices
    from taximeter.meter import Meter

HOLD_SECONDS: Final = 60.0
HOLD_SECONDS_MAX: Final = 86_400
SLICE_SECONDS: Final = 10.0
_OUTPUT: Final = "output_tokens"

Quantities = Mapping[str, int | float | Decimal]


class Holds(Prices):
    """What a `taximeter.Meter` knows of holds."""

    _closed: bool
    _flag_settings: FlagSettings | None
    _lock: threading.RLock
    _top_up_url: str | None
    _keeper: Keeper | None = None

    def status(self, workspace_id: str) -> FlagStatus:
        """See `taximeter.Meter`."""
        raise NotImplementedError

    def hold(
        self,
        workspace_id: str,
        *,
        max_cost: Decimal | str | int | None = None,
        ttl: float = HOLD_SECONDS,
        key: str | None = None,
        on_short: Literal["reject", "cap"] = "reject",
        dry_run: bool = False,
        tool: str = "",
        provider: str | None = None,
        model: str | None = None,
        quantities: Quantities | None = None,
        user: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Hold:
        """Set an amount aside for a call that is about to run, so that calls together spend no more than there is.

        One round trip to Redis, of at most ``timeout_seconds``. Use it as a context manager, and record with it::

            with meter.hold("acme", max_cost="0.05") as hold:
                meter.record("acme", …, hold=hold)

        Args:
            workspace_id: Whose balance is held.
            max_cost: USD that the call costs at most. Held are whole microdollars, rounded up.
            ttl: Seconds that the hold lives without a context. Within one it is renewed until the context ends.
            key: Your own id for it. The same key again, while the hold is open, is the same hold.
            on_short: ``"cap"`` holds what there is, where that is less than ``max_cost`` and more than nothing.
            dry_run: Only ask: ``hold.granted`` says whether the balance affords it, and nothing is held.
            tool: In the place of ``max_cost``, the usage that is priced: the most that the call can consume.
            provider: Of that usage.
            model: Of that usage.
            quantities: Of that usage, by unit: an upper bound.
            user: Who within the workspace: with tool, model and tags it says which budgets concern the call.
            tags: As the usage will bear them.

        Raises:
            BudgetExceeded: A hard budget that concerns the call is used up.
            InsufficientCredit: The balance does not afford it. With ``"cap"``: it affords nothing, or no output token.
            HoldsUnavailableError: Redis cannot be asked, and ``on_unknown`` is not ``"open"``.
            InvalidEventError: An argument is malformed.
            PriceMissingError, OutOfRangeError, PricesUnavailableError: As `price` does.
            ConfigurationError: The meter has no Redis address.
            ClosedError: The meter is closed.
        """
        check_workspace_id(workspace_id)
        if (max_cost is None) == (quantities is None):
            raise ConfigurationError("give a hold either max_cost or the quantities to price, one of the two")
        _check_ttl(ttl)
        if on_short not in {"reject", "cap"}:
            raise ConfigurationError('on_short must be "reject" or "cap"')
        usage = None if quantities is None else _Usage(self, workspace_id, tool, provider, model, quantities)
        amount = to_microdollars(usage.cost() if usage is not None else max_cost)  # type: ignore[arg-type]  # one of the two
        keeper = self._keeper or self._start_keeper()
        require_budget(cast("Meter", self), workspace_id, Caller(user, tool or None, model, tags))
        made = Hold(
            keeper, workspace_id, new_event_id() if key is None else _check_key(key), self._short, ttl_seconds=ttl
        )
        made.microdollars, made.held = amount, to_usd(amount)
        option = b"dry" if dry_run else b"cap" if on_short == "cap" else b""
        return self._place(keeper, made, option, usage, ours=key is None)

    def slices(
        self, workspace_id: str, *, max_cost: Decimal | str | int, size: Decimal | str | int, ttl: float = SLICE_SECONDS
    ) -> Slices:
        """Hold larger amounts in Redis, and serve many calls from each in this process: a hold then takes microseconds.

        Keep it as long as there are calls, and close it::

            slices = meter.slices("acme", max_cost="0.0002", size="0.05")
            with slices.hold() as hold:
                meter.record("acme", …, hold=hold)

        Args:
            workspace_id: Whose balance is held.
            max_cost: USD that each call costs at most.
            size: USD of a slice. What a process has in its slice, no other can hold.
            ttl: Seconds after which a slice goes back that no call has taken from.

        Raises:
            InvalidEventError: An argument is malformed.
            ConfigurationError: A slice does not pay for one call, or the meter has no Redis address.
            ClosedError: The meter is closed.
        """
        from taximeter.holds.slices import Slice, Slices

        check_workspace_id(workspace_id)
        amount, whole = to_microdollars(max_cost), to_microdollars(size)
        if not 0 < amount <= whole:
            raise ConfigurationError("max_cost of slices must be above 0 and not above their size")
        _check_ttl(ttl)
        self._keeper or self._start_keeper()

        def keeper() -> Keeper:
            return self._keeper or self._start_keeper()

        def place() -> Slice:
            require_budget(cast("Meter", self), workspace_id, ANYONE)
            made = Slice(keeper(), workspace_id, new_event_id(), self._short, ttl_seconds=ttl)
            made.microdollars, made.held = whole, to_usd(whole)
            self._place(keeper(), made, b"cap", None, ours=True)
            if made.id is not None:
                keeper().keep(made, made.live_seconds)
            return made

        return Slices(place, keeper, amount)

    def hold_by_id(self, workspace_id: str, hold_id: str, *, ttl: float = HOLD_SECONDS) -> Hold:
        """A hold that was placed elsewhere, to extend or release it. Redis is not asked; what is held is unknown until then.

        Extending one that has expired holds the amount again, if the balance affords it. One whose usage was recorded is not
        released: its booking settles it.

        Raises:
            InvalidEventError: An argument is malformed.
            ConfigurationError: The meter has no Redis address.
            ClosedError: The meter is closed.
        """
        keeper = self._keeper or self._start_keeper()
        check_workspace_id(workspace_id)
        return Hold(keeper, workspace_id, _check_key(hold_id), self._short, ttl_seconds=_check_ttl(ttl))

    def note_recorded(self, workspace_id: str, hold_id: str) -> None:
        """Tell Redis that a usage which names this hold is recorded: it does not expire before that is booked.

        `record` does so by itself. For whoever publishes events that others have built, before they are published. Where Redis
        does not answer, it is told later; a hold that is not there is not placed.
        """
        with self._recording(workspace_id, _check_key(hold_id)):
            pass

    def _place(self, keeper: Keeper, made: Hold, option: bytes, usage: _Usage | None, *, ours: bool) -> Hold:
        from taximeter.holds.keeper import require_granted

        try:
            answer = keeper.place(made, made.microdollars, option)
            if not answer.short:
                require_granted(answer)
        except HoldsUnavailableError as error:
            if ours and error.retry_after_seconds is None:
                keeper.release(made, "no answer came in time")  # it may have been granted all the same
            if self._flag_settings is None or not self._flag_settings.enabled_if_unknown:
                raise
            made.id, made.held, made.state = None, Decimal(0), OPEN
            return made
        made.accept(answer)
        if option == b"dry":
            made.id, made.granted, made.held = None, answer.granted, Decimal(0)
            return made
        if answer.short:
            raise self._short(made.workspace_id, to_usd(answer.available))
        if usage is not None:
            made.output_tokens = usage.output_tokens(made.held)
            if made.output_tokens is not None and made.output_tokens <= 0 < usage.asked:
                made.release("it would not pay for an output token")
                raise self._short(made.workspace_id, made.available or Decimal(0))
        return made

    def _short(self, workspace_id: str, available: Decimal) -> InsufficientCredit:
        try:
            status = self.status(workspace_id).status
        except TaximeterError:
            status = None
        address = self._top_up_url.replace("{workspace}", workspace_id) if self._top_up_url else None
        return InsufficientCredit(
            f"workspace {workspace_id} has {available:f} USD available, which is less than the call may cost; "
            + (
                f"top up at {address}"
                if address
                else f"top it up, for example by `taximeter credit {workspace_id} AMOUNT`"
            ),
            workspace=workspace_id,
            status=status,
            available=available,
            top_up_url=address,
        )

    def _recording(self, workspace_id: str, hold: Hold | str) -> AbstractContextManager[None]:
        if self._flag_settings is None:  # it only records; whoever placed the hold keeps it until the usage is booked
            return nullcontext()
        return (self._keeper or self._start_keeper()).recording(workspace_id, hold)

    def _start_keeper(self) -> Keeper:
        from taximeter.holds.keeper import Keeper
        from taximeter.holds.server import HoldServer

        with self._lock:
            if self._closed:
                raise ClosedError("the meter is closed; make a new one")
            if self._flag_settings is None:
                raise ConfigurationError(
                    f"this meter cannot hold: it has no Redis address. Set {REDIS_URL_VARIABLE} or pass redis_url"
                )
            if self._keeper is None:
                self._keeper = Keeper(HoldServer(self._flag_settings))
            return self._keeper

    def _close_holds(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.close()

    def _drop_holds(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.stop()

    def _abandon_holds(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.abandon()


class _Usage:
    """The usage that a hold is priced by."""

    def __init__(
        self,
        prices: Prices,
        workspace_id: str,
        tool: str,
        provider: str | None,
        model: str | None,
        quantities: Quantities,
    ) -> None:
        self._prices = prices
        self._names = {"tool": tool or "hold", "provider": provider, "model": model}
        self._workspace_id = workspace_id
        self._quantities = dict(quantities)
        self.asked = self._quantities.get(_OUTPUT, 0)

    def cost(self, output_tokens: int | None = None) -> Decimal:
        quantities = self._quantities if output_tokens is None else {**self._quantities, _OUTPUT: output_tokens}
        return self._prices.price(self._workspace_id, quantities=quantities, **self._names)  # type: ignore[arg-type]

    def output_tokens(self, held: Decimal) -> int | None:
        """How many output tokens ``held`` pays for beside the rest, at most as many as were asked for; -1: not even the rest."""
        if not self.asked:
            return None
        low, high = -1, int(self.asked)
        if self.cost(high) <= held:
            return high
        while high - low > 1:  # low is paid for, high is not
            middle = (low + high) // 2
            low, high = (middle, high) if self.cost(middle) <= held else (low, middle)
        return low


def _check_ttl(ttl: float) -> float:
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 < ttl <= HOLD_SECONDS_MAX:
        raise ConfigurationError(f"ttl must be a number of seconds above 0, at most {HOLD_SECONDS_MAX}")
    return ttl


def _check_key(key: object) -> str:
    if (
        isinstance(key, str)
        and 0 < len(key) <= limits.HOLD_ID_MAX
        and key.isascii()
        and key.isprintable()
        and key.strip()
    ):
        return key
    raise InvalidEventError("bad_text", "key", f"must be 1 to {limits.HOLD_ID_MAX} printable ASCII characters")
