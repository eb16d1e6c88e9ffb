"""The Celery app of the worker: ``celery -A taximeter_worker worker``.

Celery keeps the process: signals, pool, control, tasks, beat. The stream of usage does not pass through its task machinery
(docs/decisions/0020).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from taximeter.tls import split_tls
from taximeter_db import json_lines
from taximeter_worker import logs, rollups, tasks
from taximeter_worker.errors import SettingError
from taximeter_worker.settings import Settings
from taximeter_worker.step import PauseStep, UsageStep

log = structlog.get_logger(__name__)

TASK_QUEUE = "taximeter.tasks"


def make_app(settings: Settings | None = None) -> Celery:
    """A Celery app with the usage consumer and the tasks.

    Raises:
        SettingError: the environment lacks a setting or holds one that makes no sense.
    """
    settings = settings or Settings.from_env()
    logs.configure(settings.log_format)
    app = Celery("taximeter_worker", set_as_current=False)
    app.conf.update(
        broker_url=split_tls(settings.celery_broker_url)[0],
        broker_use_ssl=settings.celery_tls,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # a worker waits for its broker for ever
        broker_channel_error_retry=True,  # nor does it end where the broker refuses it something: a full memory passes
        broker_transport_options={"socket_timeout": 10, "socket_connect_timeout": 5, "socket_keepalive": True}
        if settings.broker_is_redis
        else {"read_timeout": 10, "write_timeout": 10},
        result_backend=None,
        task_ignore_result=True,
        task_default_queue=TASK_QUEUE,
        task_serializer="json",
        accept_content=["json"],
        worker_pool="threads",  # so that one process holds all metrics; prefork works, too
        worker_concurrency=2,
        worker_enable_remote_control=False,  # nothing but tasks comes in through Celery
        worker_send_task_events=False,
        worker_hijack_root_logger=True,
        beat_scheduler="celery.beat:Scheduler",  # in memory: all tasks may run at any time
        beat_schedule={**tasks.BEAT_SCHEDULE, **rollups.BEAT_SCHEDULE},
        timezone="UTC",
    )
    app.taximeter_settings = settings
    app.taximeter_prices_changed = lambda: _prices_changed(app)
    tasks.register(app, settings)
    rollups.register(app, settings)
    app.steps["worker"].add(UsageStep)
    app.steps["consumer"].add(PauseStep)
    return app


def _prices_changed(app: Celery) -> None:
    try:
        app.send_task(tasks.REPLAY, retry=False, ignore_result=True)
    except (OperationalError, OSError) as error:
        log.warning("replay_not_queued", kind=type(error).__name__, hint="the beat will queue it")


def run(arguments: Sequence[str] = ()) -> int:
    """Run a worker in this process until it is told to stop; returns its exit code.

    ``arguments`` are further options of ``celery worker``, such as ``--loglevel=WARNING``.
    """
    argv = ["worker", "--without-mingle", "--without-gossip", "--loglevel=INFO", *arguments]
    try:
        app = make_app()
        # Celery's banner is no JSON.
        app.worker_main(["--quiet", *argv] if app.taximeter_settings.log_format == json_lines.JSON else argv)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


@functools.cache
def shared_app() -> Celery:
    """The app that ``celery -A taximeter_worker`` finds, made from the environment on first use.

    Raises:
        SystemExit: a setting is missing or wrong; Celery would bury the sentence in a traceback.
    """
    try:
        return make_app()
    except SettingError as error:
        raise SystemExit(f"taximeter worker: {error}") from error
