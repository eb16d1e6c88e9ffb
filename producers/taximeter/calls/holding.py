"""Holds of calls that are followed: placed before each call, settled by its record, given back where there is none."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal

from taximeter.errors import ConfigurationError

if TYPE_CHECKING:
    from taximeter.calls.call import Amounts, Call
    from taximeter.holds.hold import Hold

OUTPUT_TOKENS: Final = 4096
"""What is held for a call that sets no limit of its own."""


@dataclass(frozen=True, slots=True)
class CallHolds:
    """How `taximeter.Meter.wrap` holds before each call; ``hold=True`` is all of these defaults.

    Attributes:
        output_tokens: What is held for a call that sets no limit of its own (``max_tokens`` and its kin).
        on_short: What becomes of a call that the balance does not afford: ``"reject"`` it, or ``"cap"`` its limit to the
            output tokens that it does afford.
        quantities: Says by unit what a call can consume at most, from what is asked, in the place of the estimate; None: go
            by the estimate.
    """

    output_tokens: int = OUTPUT_TOKENS
    on_short: Literal["reject", "cap"] = "reject"
    quantities: Callable[[Mapping[str, Any]], Amounts | None] | None = None

    def __post_init__(self) -> None:
        if self.on_short not in ("reject", "cap"):
            raise ConfigurationError('on_short must be "reject" or "cap"')
        if isinstance(self.output_tokens, bool) or not isinstance(self.output_tokens, int) or self.output_tokens < 1:
            raise ConfigurationError("output_tokens must be a whole number above 0")


def call_holds(hold: object) -> CallHolds | None:
    """What the argument ``hold`` of `taximeter.Meter.wrap` means.

    Raises:
        ConfigurationError: Nothing.
    """
    if hold is True:
        return CallHolds()
    if hold is False or hold is None:
        return None
    if isinstance(hold, CallHolds):
        return hold
    raise ConfigurationError("hold must be True, False or a CallHolds")


def hold_for(
    call: Call, max_cost: Decimal | str | int | Amounts, on_short: Literal["reject", "cap"] = "reject"
) -> Hold:
    """Place the hold of a call, by an amount or by the quantities that it consumes at most.

    It is renewed until the call ends. A call that is dropped without an end gives it back, too.

    Raises:
        InsufficientCredit, HoldsUnavailableError, PriceMissingError, ...: As `taximeter.Meter.hold` does.
    """
    payer = call.attribution
    priced = isinstance(max_cost, Mapping)
    hold: Hold = call.meter.hold(
        payer.workspace_id,
        max_cost=None if priced else max_cost,
        quantities=max_cost if priced else None,
        tool=payer.tool,
        provider=call.provider,
        model=call.model,
        on_short=on_short,
        user=payer.user,
        tags=payer.tags,
    )
    call.hold = hold.__enter__()
    weakref.finalize(call, hold.drop).atexit = False
    return hold
