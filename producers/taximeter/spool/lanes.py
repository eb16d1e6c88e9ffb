"""Lanes: the segments of one routing key, and what of them is in flight."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from taximeter.backoff import BackOff
from taximeter.spool.segment import Cut, Segment

BACK_OFF_FIRST_SECONDS: Final = 0.1
BACK_OFF_MAX_SECONDS: Final = 10.0
SET_ASIDE_POSITIONS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """How events are packed into messages; explained at `taximeter.Meter`."""

    events_max: int
    bytes_max: int
    linger_seconds: float


class Lane:
    """Segments that are published in order, all for one routing key.

    A process has one lane a routing key for its own events and one for adopted ones, so that neither an unroutable
    key nor a dead process's backlog holds up the others.
    """

    def __init__(self, routing_key: str) -> None:
        self.routing_key = routing_key
        self.segments: deque[Segment] = deque()
        self.accepted_events = 0
        """Events that ever entered this lane."""
        self.confirmed_events = 0
        """Events of this lane that the broker has confirmed."""
        self.set_aside_events = 0
        """Events of this lane that the broker refuses for their size."""
        self.set_aside_positions: deque[int] = deque(maxlen=SET_ASIDE_POSITIONS_MAX)
        """Which these are, the newest: 1 is the first event that ever entered the lane."""

    @property
    def settled_events(self) -> int:
        """Events that need no more publishing."""
        return self.confirmed_events + self.set_aside_events

    @property
    def waiting_events(self) -> int:
        """Events that are to be published yet, or whose confirm is awaited."""
        return self.accepted_events - self.settled_events

    @property
    def waiting_bytes(self) -> int:
        """Bytes of these events."""
        return sum(segment.end - segment.confirmed for segment in tuple(self.segments))


class Stretch(NamedTuple):
    """Events that entered a lane one after the other. They are settled in this order, after all before them."""

    lane: Lane
    first: int
    """The position of the first of them, as in `Lane.set_aside_positions`."""
    last: int

    @property
    def settled(self) -> bool:
        """Whether the broker has confirmed them all, or has refused some for their size."""
        return self.lane.settled_events >= self.last

    def set_aside(self) -> list[int]:
        """Which of them the broker refuses for their size, counted from 0."""
        return [at - self.first for at in tuple(self.lane.set_aside_positions) if self.first <= at <= self.last]


@dataclass(eq=False, slots=True)
class Message:
    """A message in flight."""

    progress: LaneProgress
    segment: Segment
    cut: Cut
    sent_at: float
    confirmed: bool = False
    void: bool = False
    """The lane went back behind this message; its verdict no longer matters."""


@dataclass(eq=False, slots=True)
class LaneProgress:
    """A lane and what of it is in flight, in order."""

    lane: Lane
    in_flight: deque[Message] = field(default_factory=deque)
    events_in_flight: int = 0
    back_off: BackOff = field(default_factory=lambda: BackOff(BACK_OFF_FIRST_SECONDS, BACK_OFF_MAX_SECONDS))
    retry_at: float = 0.0
    sent_at: float = 0.0

    @property
    def unsent_events(self) -> int:
        """Events that are not in flight."""
        return self.lane.waiting_events - self.events_in_flight

    @property
    def retry_due(self) -> bool:
        """Whether a message of this lane was not taken, and it is time to send it again."""
        return self.back_off.failures > 0 and self.retry_at <= time.monotonic()

    def send(self, message: Message) -> None:
        """Note a message that is about to be sent."""
        self.in_flight.append(message)
        self.events_in_flight += message.cut.events
        self.sent_at = message.sent_at

    def advance(self) -> bool:
        """Move the confirmed position over the messages confirmed in order. Says whether there were any."""
        advanced = False
        while self.in_flight and self.in_flight[0].confirmed:
            message = self.in_flight.popleft()
            message.segment.confirm(message.cut.end)
            self.lane.confirmed_events += message.cut.events
            self.events_in_flight -= message.cut.events
            advanced = True
        return advanced

    def rewind(self) -> None:
        """Go back to the last confirmed position."""
        for message in self.in_flight:
            message.void = True
        self.in_flight.clear()
        self.events_in_flight = 0
        for segment in tuple(self.lane.segments):
            segment.rewind()
