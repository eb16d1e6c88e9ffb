"""Every error the SDK raises.

TaximeterError
├── ConfigurationError     an address is missing or cannot be understood
├── InvalidEventError      the event can never be booked (also a ValueError)
├── SpoolError             the event could not be put into the local spool
├── FlushTimeoutError      events are still spooled (also a TimeoutError)
├── SetAsideError          the broker refuses events for their size
├── PriceMissingError      nothing in the price book prices a unit of the event at its time
├── OutOfRangeError        the cost is beyond what the ledger can hold
├── PricesUnavailableError the price book cannot be read from Redis
├── CallRefusedError       a call to AI was refused before it was made
│   ├── AIDisabled         the workspace's flag says no
│   ├── InsufficientCredit what is available is less than the call may cost
│   └── BudgetExceeded     a hard budget is used up
├── NoAttributionError     nobody said which workspace pays for a call
├── NotMeteredError        a wrapped client cannot follow what this call consumes
├── HoldsUnavailableError  Redis cannot be asked for a hold, or has lost some a moment ago
└── ClosedError            the meter was closed, or the hold has ended
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

_PER: Final = {"tokens": "1000000", "seconds": "3600"}


class TaximeterError(Exception):
    """Root of every error the SDK raises."""


class ConfigurationError(TaximeterError):
    """A setting is missing or cannot be understood; the sentence names it."""


class InvalidEventError(TaximeterError, ValueError):
    """The event would surely be refused, so it was not accepted.

    Attributes:
        code: The reason code that quarantine would have given it, e.g. ``negative_quantity``.
        field: The argument or field at fault, e.g. ``quantities.input_tokens``.
    """

    def __init__(self, code: str, field: str, sentence: str) -> None:
        super().__init__(f"{field}: {sentence} [{code}]")
        self.code = code
        self.field = field


class SpoolError(TaximeterError):
    """The local spool could not take the event: it was **not** accepted."""


class FlushTimeoutError(TaximeterError, TimeoutError):
    """The broker did not confirm everything in time. Nothing is lost: the events stay spooled.

    Attributes:
        spooled: Number of events that are still spooled.
    """

    def __init__(self, spooled: int, timeout_seconds: float, last_error: str | None) -> None:
        why = f"the last failure was: {last_error}" if last_error else "the broker has not answered yet"
        super().__init__(
            f"{spooled} event{' is' if spooled == 1 else 's are'} still spooled after {timeout_seconds:g} s and will be"
            f" published later; {why}"
        )
        self.spooled = spooled


class SetAsideError(TaximeterError):
    """The broker refuses some events for their size. The others are confirmed; these are kept in files of the spool.

    Attributes:
        files: The files that hold them, one event a line.
    """

    def __init__(self, files: Mapping[Path, str]) -> None:
        reasons = "; ".join(dict.fromkeys(files.values()))
        paths = ", ".join(str(path) for path in files)
        super().__init__(
            f"events are set aside in {paths}: {reasons}. Everything else is confirmed. Raise the broker's limit, publish"
            " each file with `taximeter publish FILE`, and delete it"
        )
        self.files = tuple(files)


class ClosedError(TaximeterError):
    """The meter was closed before this call, or the hold has ended."""


class HoldsUnavailableError(TaximeterError):
    """No hold can be granted now, whatever the balance is.

    Attributes:
        retry_after_seconds: When to try again, if that is known: after Redis has lost holds, none is granted for a while.
    """

    def __init__(self, sentence: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(sentence)
        self.retry_after_seconds = retry_after_seconds


class PriceMissingError(TaximeterError):
    """Nothing in the book prices a unit of the event at its time; its sentence names the command that sets one."""

    reason: Final = "price_missing"

    def __init__(
        self,
        *,
        unit: str,
        tool: str,
        provider: str | None,
        model: str | None,
        time: str,
        later: str | None,
        meant: str | None = None,
    ) -> None:
        self.unit = unit
        self.tool = tool
        self.provider = provider
        self.model = model
        self.time = time
        self.meant = meant
        super().__init__(self._sentence(later))

    def _sentence(self, later: str | None) -> str:
        if self.provider is not None and self.model is not None:
            what = f"{self.provider} {self.model} or tool {self.tool}"
            target = f"--provider {shlex.quote(self.provider)} --model {shlex.quote(self.model)}"
        else:
            what = f"tool {self.tool}"
            target = f"--tool {shlex.quote(self.tool)}"
        per = _PER.get(self.unit.rpartition("_")[2], "1")
        hint = f"taximeter prices set {target} --unit {shlex.quote(self.unit)} --price AMOUNT --per {per}"
        if later is not None:
            return (
                f"{self.unit} of {what} has a price only from {later}, after the event's time {self.time}. "
                f"Price the time before: {hint} --from {self.time}"
            )
        if self.meant is not None:
            return (
                f"No price for {self.unit} of {what} at {self.time}. Did you mean {self.meant}, which has one? Correct the "
                f"sender, and replay this with a correction. If it is a unit of its own, set a price: {hint}"
            )
        sentence = f"No price for {self.unit} of {what} at {self.time}. Set one: {hint}"
        if (self.provider is None) != (self.model is None):
            sentence += " (the event names only one of provider and model; a model's price needs both)"
        return sentence


class OutOfRangeError(TaximeterError):
    """The cost is 10¹⁵ USD or more: beyond what the ledger can hold."""

    reason: Final = "out_of_range"


class PricesUnavailableError(TaximeterError):
    """The price book cannot be read from Redis, or no worker has published it yet."""


class CallRefusedError(TaximeterError):
    """A call to AI was refused before it was made.

    Attributes:
        workspace: Whose call it was.
        status: ``sufficient``, ``low`` or ``insufficient``; None if nothing is known.
        available: What may still be held, in USD; None if it was not asked for.
        budget: The budget that refused the call, by name.
        top_up_url: Where the workspace can top up, if the meter was told.
    """

    def __init__(
        self,
        sentence: str,
        *,
        workspace: str,
        status: str | None = None,
        available: Decimal | None = None,
        budget: str | None = None,
        top_up_url: str | None = None,
    ) -> None:
        super().__init__(sentence)
        self.workspace = workspace
        self.status = status
        self.available = available
        self.budget = budget
        self.top_up_url = top_up_url

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), str(self), self.__dict__)


class AIDisabled(CallRefusedError):  # noqa: N818 - the contract's name
    """The workspace may not use AI: its balance is below its minimum."""


class InsufficientCredit(CallRefusedError):  # noqa: N818 - the contract's name
    """The call may cost more than is available."""


class BudgetExceeded(CallRefusedError):  # noqa: N818 - the contract's name
    """A hard budget that applies to the call is used up."""


class NoAttributionError(TaximeterError):
    """A call was about to be made, and nobody said which workspace pays for it."""


class NotMeteredError(TaximeterError):
    """What a call consumes cannot be followed, so the wrapped client did not make it."""


def _rebuild(kind: type[CallRefusedError], sentence: str, attributes: dict[str, Any]) -> CallRefusedError:
    return kind(sentence, **attributes)
