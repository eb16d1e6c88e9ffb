"""Celery's beat, which says once that it cannot send and once that it can again."""

from __future__ import annotations

from typing import Any

import structlog
from celery.beat import ScheduleEntry, Scheduler

from taximeter_worker.logs import first_line
from taximeter_worker.outage import Outage

log = structlog.get_logger(__name__)


class QuietScheduler(Scheduler):
    """A schedule in memory: all tasks may run at any time.

    Celery's own logs a traceback for each task that it cannot send, and ends for good where the broker refuses its login once.
    """

    producer = None
    """It has no connection of its own: its messages go over the app's, which are made again when they break."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._outage = Outage("beat_waits", "beat_goes_on")
        super().__init__(*arguments, **options)

    def apply_entry(self, entry: ScheduleEntry, producer: Any = None) -> None:
        """Send a task that is due. One that cannot be sent is left to the next time that it is due."""
        log.debug("beat_sends", task=entry.task)
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except Exception as error:  # noqa: BLE001 -- whatever the client libraries raise, the beat goes on
            self._outage.failed(task=entry.task, why=first_line(error))
        else:
            self._outage.ended()
