"""How long to wait after a failure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

_DOUBLINGS_MAX: Final = 30


@dataclass(slots=True)
class BackOff:
    """Delays that double from the first to the longest, with jitter, so that many processes do not return at once.

    Reset it when the other side has done its work, never because a connection was accepted.
    """

    first_seconds: float
    max_seconds: float
    failures: int = 0
    """Failures in a row."""

    def next_delay(self) -> float:
        """Count a failure and return the seconds to wait, between half of the delay and all of it."""
        ceiling = min(self.max_seconds, self.first_seconds * (1 << min(self.failures, _DOUBLINGS_MAX)))
        self.failures += 1
        return ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret

    def reset(self) -> None:
        """Begin with the first delay again."""
        self.failures = 0
