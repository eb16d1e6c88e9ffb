"""Every error the SDK raises.

TaximeterError
├── ConfigurationError     an address is missing or cannot be understood
├── InvalidEventError      the event can never be booked (also a ValueError)
├── SpoolError             the event could not be put into the local spool
├── FlushTimeoutError      events are still spooled (also a TimeoutError)
└── ClosedError            the meter was closed
"""

from __future__ import annotations


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


class ClosedError(TaximeterError):
    """The meter was closed before this call."""
