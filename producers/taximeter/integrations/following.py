"""One call through a wrapped client, from what is asked to what is read of the answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from taximeter import quantities
from taximeter.calls import attribution as attributions
from taximeter.calls import seams
from taximeter.calls.attribution import Attribution
from taximeter.calls.call import Call, Recorder, begin
from taximeter.calls.holding import CallHolds, hold_for
from taximeter.errors import InvalidEventError, NotMeteredError
from taximeter.integrations.bounds import OUTPUT, Limits
from taximeter.quantities.usual import read_usual

_log = logging.getLogger(__name__)


class Followed:
    """A call whose answer is read as it comes.

    Attributes:
        call: What is recorded.
        arguments: What the client is asked, to be changed by `Method.prepare`.
        hides: Says of an event that nobody asked for it; it is read and not shown.
        usage_is_due: Says of an event that the answer has ended, and that its usage follows; it is shown after that.
        is_read: A chunk of the stream is being read; whoever closes the stream in there does not end the call.
    """

    __slots__ = ("__weakref__", "_ended", "_reader", "arguments", "call", "dialect", "hides", "is_read", "usage_is_due")

    def __init__(self, call: Call, method: Method, arguments: dict[str, Any]) -> None:
        self.call = call
        self.arguments = arguments
        self.hides: Callable[[Any], bool] | None = None
        self.usage_is_due: Callable[[Any], bool] | None = None
        self.is_read = False
        self._ended = False
        self._reader: quantities.StreamReader | None = None
        self.dialect = method.dialect

    def read_as(self, dialect: str) -> None:
        """Read the answer as another dialect than the method's; for `Method.prepare`."""
        self.dialect = dialect

    def seam(self) -> seams.Seam:
        """Open around what makes the call; what fails within it has consumed nothing."""
        return _CallSeam(self)

    def whole(self, answer: object) -> None:
        """Read a whole answer, and record it."""
        reading = read_usual(self.dialect, answer, self.call.model)
        if reading is None:
            self.event(answer)
            self.end(complete=True)
        else:
            self._ended = True
            self.call.end(reading)

    def event(self, event: object) -> bool:
        """Read an event of a stream; says whether to show it."""
        if not self._ended:
            (self._reader or self._read()).add(event)
        return self.hides is None or not self.hides(event)

    def end(self, *, complete: bool | None = None) -> None:
        """Record what is known, once.

        Args:
            complete: Whether the answer is whole. None: whether an event of the stream said so.
        """
        if self._ended:
            return
        self._ended = True
        try:
            reading = (self._reader or self._read()).reading(complete=complete)
        except InvalidEventError as error:
            # The answer was given, so something was consumed. The event waits in quarantine, unless requests have a price.
            _log.warning("the usage of a call cannot be read: %s", error)
            self.call.metadata["usage_error"] = str(error)
            self.call.end(flags=("usage_unreadable",))
        else:
            self.call.end(reading)

    def fail(self) -> None:
        """The call failed before there was an answer: nothing was consumed."""
        self._ended = True
        self.call.abandon()

    def _read(self) -> quantities.StreamReader:
        self._reader = quantities.StreamReader(
            self.dialect, model=self.call.model, provider=self.call.provider, request=self.arguments
        )
        return self._reader


class _CallSeam(seams.Seam):
    __slots__ = ("_followed",)

    def __init__(self, followed: Followed) -> None:
        self._followed = followed

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        if error is not None:
            self._followed.fail()


def seam_of(followed: Followed | None) -> AbstractContextManager[None]:
    """The seam of a call, or none where it passes."""
    return nullcontext() if followed is None else followed.seam()


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a client that is metered."""

    dialect: str
    """How its answer is read: one of `taximeter.quantities.DIALECTS`."""
    prepare: Callable[[Followed], None] | None = None
    """Changes what is asked, or raises `NotMeteredError` where the answer could not be followed."""
    refuse: Callable[[Mapping[str, Any]], str | None] | None = None
    """Why what is asked could not be followed; None if it can be."""
    limits: Limits | None = None
    """Where it is told what it consumes at most; None: that cannot be told, and nothing is held for it."""
    is_deferred: bool = False
    """What it returns makes the call only when it is entered, as a context manager."""
    model_argument: str = "model"


@dataclass(frozen=True, slots=True)
class Metering:
    """How a wrapped client is metered; the arguments of `Meter.wrap`."""

    meter: Recorder
    attribution: Attribution | None = None
    provider: str | None = None
    passes_outside: bool = False
    holds: CallHolds | None = None

    def payer(self) -> Attribution | None:
        """Who pays for a call that is made now, checked. None: it passes, as in `begin`.

        Raises:
            NoAttributionError: Nobody says who pays.
            AIDisabled: The workspace may not use AI.
        """
        if seams.is_inside():
            return None
        if self.passes_outside and self.attribution is None and attributions.current() is None:
            return None
        payer = attributions.required(self.attribution)
        self.meter.check_call(payer)
        return payer

    def begin(self, method: Method, path: str, arguments: dict[str, Any]) -> Followed | None:
        """Check a call and begin to follow it. None: it passes, as part of a metered call, or because nobody pays.

        Raises:
            NotMeteredError: Its answer could not be followed.
            NoAttributionError: Nobody says who pays.
            AIDisabled: The workspace may not use AI.
        """
        if seams.is_inside():
            return None
        if self.passes_outside and self.attribution is None and attributions.current() is None:
            return None
        reason = method.refuse(arguments) if method.refuse is not None else None
        if reason is not None:
            raise NotMeteredError(f"{path} was not called: {reason}")
        model = arguments.get(method.model_argument)
        call = begin(
            self.meter,
            attribution=self.attribution,
            provider=self.provider,
            model=model if isinstance(model, str) else None,
        )
        seams.note_metered()
        followed = Followed(call, method, arguments)
        if method.prepare is not None:
            method.prepare(followed)
        if self.holds is not None:
            hold_before(followed, self.holds, method.limits)
        return followed


def hold_before(followed: Followed, holds: CallHolds, limits: Limits | None) -> None:
    """Hold what a call consumes at most, and lower its limit where only a part of that is affordable.

    Raises:
        InsufficientCredit, HoldsUnavailableError, PriceMissingError, ...: As `taximeter.Meter.hold` does.
    """
    arguments = followed.arguments
    most = holds.quantities(arguments) if holds.quantities is not None else None
    if most is None and limits is not None:
        most = limits.at_most(arguments, holds.output_tokens)
    if most is None:
        return
    hold = hold_for(followed.call, most, holds.on_short)
    affordable = hold.output_tokens
    if limits is not None and affordable is not None and affordable < most.get(OUTPUT, 0):
        limits.lower(arguments, affordable)
