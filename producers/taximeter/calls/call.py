"""One metered call: checked before it is made, recorded once when it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Protocol

from taximeter.calls.attribution import Attribution, required
from taximeter.events import exact_quantities
from taximeter.ids import new_event_id

if TYPE_CHECKING:
    from taximeter.holds.hold import Hold
    from taximeter.quantities import Reading

REQUESTS: Final = "requests"
"""The unit that stands for a call of which nothing else is known."""
Amounts = Mapping[str, "int | float | Decimal"]


class Recorder(Protocol):
    """What a call needs of a meter: `taximeter.Meter`, or the one for tests."""

    def check_call(self, attribution: Attribution, model: str | None = None) -> None:
        """Raise if the call must not be made, or could not be recorded."""

    @property
    def record(self) -> Callable[..., str]:
        """`taximeter.Meter.record`."""

    @property
    def hold(self) -> Callable[..., Hold]:
        """`taximeter.Meter.hold`."""


class Call:
    """A call that runs. What is set or added before it ends goes into its event.

    Attributes:
        provider: Who runs the model.
        model: The model's name.
        input: What went in, any JSON value.
        output: What came out, any JSON value.
        metadata: Any further JSON values by name.
        id: The event's id, if it is to be one of yours. Default: a new one.
        hold: What is held for it, if it was held.
    """

    def __init__(
        self, meter: Recorder, attribution: Attribution, *, provider: str | None = None, model: str | None = None
    ) -> None:
        self.attribution = attribution
        self.provider = provider
        self.model = model
        self.input: Any = None
        self.output: Any = None
        self.metadata: dict[str, Any] = {}
        self.id: str | None = None
        self.hold: Hold | None = None
        self.meter = meter
        self._sums: dict[str, int | Decimal] = {}
        self._ended = False
        self._lock = threading.Lock()

    def add(self, quantities: Amounts | None = None, /, **units: float | Decimal) -> None:
        """Add to what the call has consumed: ``call.add(seconds=90)``, or a mapping of units.

        Raises:
            InvalidEventError: An amount could never be booked.
        """
        added = exact_quantities({**(quantities or {}), **units})
        with self._lock:
            for unit, amount in added.items():
                self._sums[unit] = self._sums.get(unit, 0) + amount

    @property
    def quantities(self) -> dict[str, int | Decimal]:
        """What was added so far."""
        return dict(self._sums)

    def end(self, reading: Reading | None = None, *, flags: Iterable[str] = ()) -> None:
        """Record what was consumed, once; a second end does nothing.

        Args:
            reading: What a response reports. Each of its models becomes an event, whose ids differ by their suffix. One
                that reports nothing becomes a request, flagged ``usage_missing``: it was not free.
            flags: What to know about the record, beside the reading's own; they go to ``metadata.flags``.

        Raises:
            InvalidEventError: The event could never be booked.
            SpoolError: The spool could not take it.
        """
        with self._lock:
            if self._ended:
                return
            self._ended = True
        noted = [*flags]
        metadata = dict(self.metadata)
        if reading is not None:
            noted = [*reading.flags, *noted]
            if reading.request_id is not None:
                metadata.setdefault("request_id", reading.request_id)
        if noted:
            metadata["flags"] = noted
        parts = [(self.model, self._sums, "")]
        if reading is not None:
            first, *others = reading.parts
            parts = [(first.model or self.model, {**first.pools, **self._sums}, first.suffix), *others]
        base = self.id or (new_event_id() if len(parts) > 1 else None)
        try:
            for number, (model, pools, suffix) in enumerate(parts):
                content = {"input": self.input, "output": self.output} if number == 0 else {}
                self.meter.record(
                    self.attribution.workspace_id,
                    tool=self.attribution.tool,
                    provider=self.provider,
                    model=model,
                    quantities=pools or {REQUESTS: 1},
                    metadata=metadata or None,
                    id=base + suffix if base is not None else None,
                    hold=self.hold if number == len(parts) - 1 else None,
                    **content,
                    **spent_by(self.attribution),
                )
        finally:
            self._let_go()

    def abandon(self) -> None:
        """End without a record: nothing was consumed."""
        with self._lock:
            self._ended = True
        self._let_go()

    def _let_go(self) -> None:
        """Give back what is held, unless a record is to settle it."""
        if self.hold is not None:
            self.hold.within_context = False
            self.hold.release("nothing was recorded")


def begin(
    meter: Recorder, *, attribution: Attribution | None = None, provider: str | None = None, model: str | None = None
) -> Call:
    """Check that a call may be made, and begin it.

    Args:
        meter: What checks and records.
        attribution: Who pays where the code around says nothing.
        provider: Who runs the model.
        model: The model that is asked for.

    Raises:
        NoAttributionError: Nobody says who pays.
        AIDisabled: The workspace may not use AI.
        BudgetExceeded: A hard budget that concerns the call is used up.
        ConfigurationError: The meter cannot check, or cannot record.
    """
    payer = required(attribution)
    meter.check_call(payer, model)
    return Call(meter, payer, provider=provider, model=model)


def spent_by(attribution: Attribution) -> dict[str, Any]:
    """Who within the workspace, as `Meter.record` takes it."""
    given = {"user": attribution.user, "tags": attribution.tags}
    return {name: value for name, value in given.items() if value is not None}
