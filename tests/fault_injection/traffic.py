"""Traffic that is a pure function of (seed, producer, number), so that a killed producer goes on where it was and the
reckoning at the end is made from nothing but these three numbers.

Most events are usages. Some are sent a second time, some use an id again for other content, some cannot be booked, some are
payments. The two contents of a conflicting id cost the same and belong to the same workspace: whichever arrives first, the
balances must come out alike.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cloud_events import cloud_event
from taximeter import names

PICO_PER_TOKEN = 1_000_000
"""With the tests' price book: 1 USD per million tokens of model m."""
PICO_PER_CENT = 10**10
WORKSPACES = 500
REACH = 100
"""A duplicate or a conflict refers to one of this number of events before it."""

USAGE, REPEAT, CONFLICT, UNPRICED, NEGATIVE, PAYMENT, PAYMENT_REPEAT = (
    "usage",
    "repeat",
    "conflict",
    "unpriced",
    "negative",
    "payment",
    "payment_repeat",
)
_SHARES = (
    (0.050, REPEAT),
    (0.055, CONFLICT),
    (0.059, UNPRICED),
    (0.063, NEGATIVE),
    (0.083, PAYMENT),
    (0.086, PAYMENT_REPEAT),
)
_ORIGINALS = {REPEAT: USAGE, CONFLICT: USAGE, PAYMENT_REPEAT: PAYMENT}


@dataclass(frozen=True, slots=True)
class Planned:
    """One event. ``number`` is its own, ``original`` that of the event whose id it uses (mostly the same)."""

    kind: str
    producer: int
    number: int
    original: int
    workspace: str
    pico: int
    """What it moves the balance by if it is booked."""

    @property
    def event_id(self) -> str:
        return f"p{self.producer}-{self.original}"


def _dice(seed: int, producer: int, number: int) -> random.Random:
    return random.Random(f"{seed}/{producer}/{number}")


def _kind(dice: random.Random) -> str:
    roll = dice.random()
    return next((kind for bound, kind in _SHARES if roll < bound), USAGE)


def _amounts(kind: str, dice: random.Random) -> tuple[str, int]:
    # A few workspaces have most of the traffic.
    workspace = f"w{int(dice.paretovariate(0.6)) % WORKSPACES}"
    if kind == PAYMENT:
        return workspace, dice.randrange(1, 1000) * PICO_PER_CENT
    return workspace, -dice.randrange(1, 5000) * PICO_PER_TOKEN


def plan(seed: int, producer: int, number: int) -> Planned:
    """The event that this producer sends as its ``number``-th, counted from 0."""
    dice = _dice(seed, producer, number)
    kind, original = _kind(dice), number
    if kind in _ORIGINALS:
        original = number - dice.randrange(1, REACH)
        first = _dice(seed, producer, original)
        if original >= 0 and _kind(first) == _ORIGINALS[kind]:
            return Planned(kind, producer, number, original, *_amounts(_ORIGINALS[kind], first))
        kind, original = USAGE, number
    return Planned(kind, producer, number, original, *_amounts(kind, dice))


def plans(seed: int, accepted: dict[int, int]) -> Iterator[Planned]:
    """Every event of producers that got as far as ``accepted`` says."""
    for producer, count in accepted.items():
        for number in range(count):
            yield plan(seed, producer, number)


def put(meter: Any, planned: Planned, began_at: datetime) -> None:
    """Hand the event to the SDK; the same event has the same bytes each time."""
    content = planned.number if planned.kind == CONFLICT else planned.original
    at = began_at + timedelta(milliseconds=content)
    if planned.kind in {PAYMENT, PAYMENT_REPEAT, NEGATIVE}:
        meter.publish_event(_built(planned, at))
        return
    meter.record(
        planned.workspace,
        tool="soak",
        provider="p",
        model="nobody-knows" if planned.kind == UNPRICED else "m",
        quantities={"input_tokens": -planned.pico // PICO_PER_TOKEN},
        input="in " * (content % 40),
        metadata={"content": content},
        id=planned.event_id,
        time=at,
    )


def _built(planned: Planned, at: datetime) -> dict[str, Any]:
    data: dict[str, Any]
    if planned.kind == NEGATIVE:
        kind = names.USAGE_TYPE
        data = {"tool": "soak", "provider": "p", "model": "m", "quantities": {"input_tokens": -1}}
    else:
        kind = names.PAYMENT_TYPE
        cents = planned.pico // PICO_PER_CENT
        data = {"amount": f"{cents // 100}.{cents % 100:02d}", "kind": "top_up"}
    time = at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    made: dict[str, Any] = cloud_event(
        kind, data, workspace=planned.workspace, event_id=planned.event_id, source="/soak", time=time
    )
    return made
