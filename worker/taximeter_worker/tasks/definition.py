"""How a piece of work becomes a Celery task: what happens when it fails, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import psycopg
import redis
import structlog
from celery import Celery

from taximeter_db.errors import TaximeterDbError
from taximeter_worker.errors import LockTakenError, TaximeterWorkerError
from taximeter_worker.logs import first_line
from taximeter_worker.metrics import Metrics
from taximeter_worker.monotonic_schedule import MonotonicSchedule

log = structlog.get_logger(__name__)

RETRY_SECONDS = 5.0
RETRIES_MAX = 120
"""A work that is kept out by its lock for ten minutes is left to the next beat."""


class TaskDefinition(msgspec.Struct, frozen=True):
    """A task: its name on the wire, and how often the beat sends it (None: only on demand)."""

    name: str
    every_seconds: float | None = None
    expires_seconds: float | None = None
    """A message that waited longer than this is dropped: the beat has sent another one."""

    def schedule(self) -> dict[str, Any]:
        """The entry of the beat's schedule."""
        options = {"expires": self.expires_seconds}
        return {"task": self.name, "schedule": MonotonicSchedule(self.every_seconds), "options": options}


def add(app: Celery, metrics: Metrics, definition: TaskDefinition, work: Callable[[], int]) -> None:
    """Add a task to a Celery app.

    Args:
        app: where it is to be known.
        metrics: count how it ends.
        definition: its name and schedule.
        work: does it and returns how much was done. It may run twice, late, or beside itself. `LockTakenError` says that
            another worker is at it: the task is sent again.
    """
    name = definition.name
    metrics.expect_task(name, definition.every_seconds)

    # Not shared: in another app of this process the name would reach this app's settings, and so its database.
    @app.task(
        name=name,
        bind=True,
        shared=False,
        max_retries=RETRIES_MAX,
        default_retry_delay=RETRY_SECONDS,
        throws=(LockTakenError,),
    )
    def run(task: Any) -> int:
        try:
            done = work()
        except LockTakenError as taken:
            metrics.task_ended(name, "locked")
            raise task.retry(exc=taken) from None
        except (psycopg.Error, redis.RedisError, OSError, TaximeterDbError, TaximeterWorkerError) as error:
            # The beat sends it again; a traceback would say no more than this line.
            metrics.task_ended(name, "failed")
            log.warning("task_failed", task=name, why=first_line(error))
            return 0
        except Exception:
            metrics.task_ended(name, "failed")
            raise
        metrics.task_ended(name, "succeeded")
        return done
