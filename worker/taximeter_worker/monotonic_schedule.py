"""A beat that goes on whatever happens to the machine's clock."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

from celery import schedules

_STARTED = dt.datetime.now(dt.UTC), time.monotonic()


def now() -> dt.datetime:
    """The time at which this process started, and what has passed since: set back or forth, the clock changes nothing."""
    moment, monotonic = _STARTED
    return moment + dt.timedelta(seconds=time.monotonic() - monotonic)


class MonotonicSchedule(schedules.schedule):
    """A fixed interval by the monotonic clock.

    Celery compares the clock with the last run: where it is set back by a day, nothing would run for a day.
    """

    def __init__(self, run_every: Any = None, relative: bool = False, nowfun: Any = now, app: Any = None) -> None:
        super().__init__(run_every=run_every, relative=relative, nowfun=nowfun, app=app)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, (self.run_every, self.relative)
