"""The bootstep that makes a Celery worker a usage consumer.

It belongs to the worker and not to Celery's own consumer: that one is restarted whenever Celery's connection to the broker
breaks, and booking has a connection of its own.
"""

from __future__ import annotations

import gc
from typing import Any

from celery import bootsteps
from celery.beat import EmbeddedService

from taximeter_worker.runtime import Runtime

GC_THRESHOLDS = (50_000, 20, 20)
"""Of Python's collector; its default of 700 objects runs it for every hundred events."""


class UsageStep(bootsteps.StartStopStep):
    """Starts and stops the usage consumer, its chores and the beat.

    After the pool, which may fork: threads and connections must not exist before that.
    """

    requires = ("celery.worker.components:Pool", "celery.worker.components:Beat")

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._runtime: Runtime | None = None
        self._beat: Any = None

    def start(self, worker: Any) -> None:
        """Start everything and return."""
        # What is here now stays; and a batch makes thousands of objects, none of them in a cycle.
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        app = worker.app
        self._runtime = Runtime(app.taximeter_settings, app.taximeter_prices_changed)
        self._runtime.start()
        # In a thread, in every worker: a beat process of its own would outlive a killed worker. Tasks may come twice.
        # The class must be given: an embedded beat ignores `beat_scheduler` and writes a file to the working directory,
        # which a container does not allow.
        self._beat = EmbeddedService(app, thread=True, scheduler_cls=app.conf.beat_scheduler)
        self._beat.start()

    def stop(self, worker: Any) -> None:  # noqa: ARG002 -- Celery's signature
        """Finish what is in flight and stop."""
        if self._beat is not None:
            self._beat.service.stop(wait=False)
            self._beat = None
        if self._runtime is not None:
            self._runtime.stop()
            self._runtime = None

    terminate = stop
