"""The bootsteps that make a Celery worker a usage consumer.

The consumer belongs to the worker and not to Celery's own consumer: that one is restarted whenever Celery's connection to the
broker breaks, and booking has a connection of its own.
"""

from __future__ import annotations

import gc
import os
import queue
import threading
import time
from typing import Any

import structlog
from celery import bootsteps, signals
from celery.beat import EmbeddedService
from celery.worker import state

from taximeter_worker.consume.consumer import STEADY_SECONDS
from taximeter_worker.consume.poster import BACKOFF
from taximeter_worker.logs import stacks
from taximeter_worker.runtime import Runtime

log = structlog.get_logger(__name__)

GC_THRESHOLDS = (50_000, 20, 20)
"""Of Python's collector; its default of 700 objects runs it for every hundred events."""
FAREWELL_SECONDS_MAX = 10.0
"""How long Celery may take to end once everything is booked or given up, within the drain time."""
FAREWELL_SECONDS_MIN = 1.0
WATCH_SECONDS = 0.1


class UsageConsumerStep(bootsteps.StartStopStep):
    """Starts and stops the usage consumer, the background threads and the beat.

    After the pool, which may fork: threads and connections must not exist before that.
    """

    requires = ("celery.worker.components:Pool", "celery.worker.components:Beat")

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._beat: Any = None
        self._ending: Ending | None = None

    def start(self, worker: Any) -> None:
        """Start everything and return."""
        # What is here now stays; and a batch makes thousands of objects, none of them in a cycle.
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        app = worker.app
        runtime = Runtime(
            app.taximeter_settings,
            app.taximeter_prices_changed,
            app.taximeter_metrics,
            notices_due=app.taximeter_notices_due,
        )
        self._ending = Ending(runtime)
        runtime.start()
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
        if self._ending is not None:
            self._ending.finish()
            self._ending = None

    terminate = stop


class Ending:
    """Ends the runtime as soon as the worker is told to stop, and the process in time.

    Celery stops its own consumer first, and that one waits for the broker's reply without end: a broker that is silent just
    then would keep the process alive, and what it holds unbooked, for ever. So ours begins with the signal and beside
    Celery, and whoever has not ended some seconds after it is cut short. Nothing is lost by that: what is not
    acknowledged comes again, and tasks may run twice.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._told: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._finished = threading.Event()
        signals.worker_shutting_down.connect(self._tell, weak=False)
        threading.Thread(target=self._run, name="taximeter-ending", daemon=True).start()

    def finish(self) -> None:
        """Stop the runtime, or wait until it is stopped."""
        self._tell()
        self._finished.wait()

    def _tell(self, **_: Any) -> None:
        # In a signal handler: this queue alone may be interrupted by itself.
        self._told.put(None)

    def _run(self) -> None:
        self._told.get()
        deadline = time.monotonic() + self._runtime.drain_seconds
        try:
            self._runtime.stop()
        finally:
            self._finished.set()
        left = min(deadline - time.monotonic(), FAREWELL_SECONDS_MAX)
        time.sleep(max(left, FAREWELL_SECONDS_MIN))
        try:
            log.warning("stop_cut_short", hint="what every thread is at", threads=stacks())
        finally:
            os._exit(0)


class PauseStep(bootsteps.StartStopStep):
    """Makes Celery's consumer wait before it begins again.

    It waits where it cannot connect. Where it can, and the broker then refuses a command (a memory that is full, a queue of
    other arguments), it would try again at once, several times a second.
    """

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._attempt, self._began = 0, time.monotonic()

    def stop(self, consumer: Any) -> None:
        """Wait, unless the worker ends."""
        self._attempt = 0 if time.monotonic() - self._began > STEADY_SECONDS else self._attempt + 1
        until = time.monotonic() + BACKOFF.seconds(self._attempt)
        while consumer.blueprint.state == bootsteps.RUN and time.monotonic() < until:
            if state.should_stop is not None or state.should_terminate is not None:
                break
            time.sleep(WATCH_SECONDS)
        self._began = time.monotonic()
