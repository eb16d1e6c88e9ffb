"""How long to wait before another try: longer each time, bounded, and spread so that many do not come back together."""

from __future__ import annotations

import random
from typing import NamedTuple

_DOUBLINGS_MAX = 30


class Backoff(NamedTuple):
    """An exponential back-off: `first_seconds` before the first repetition, never more than `seconds_max`."""

    first_seconds: float
    seconds_max: float

    def seconds(self, attempt: int) -> float:
        """The wait after a number of failed repetitions, counted from 0: between half of the nominal time and all of it."""
        nominal = self.first_seconds * 2.0 ** min(attempt, _DOUBLINGS_MAX)
        spread: float = random.uniform(0.5, 1)  # noqa: S311 -- no secret
        return min(nominal, self.seconds_max) * spread


LOST_RACES = Backoff(0.01, 0.64)
"""After a transaction that another one was in the way of."""
