"""The Celery app of the worker: ``celery -A taximeter_worker worker``.

Celery keeps the process: signals, pool, control, tasks, beat. The stream of usage does not pass through its task machinery
(docs/decisions/0020).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence

import psycopg
import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from taximeter.brokers.tls import split_tls
from taximeter_db import json_logs
from taximeter_db.connect import connection
from taximeter_db.crypto import key_register
from taximeter_db.errors import ConfigurationError, DatabaseUnavailableError, MasterKeyError, SchemaError
from taximeter_worker import logs
from taximeter_worker.bootsteps import PauseStep, UsageConsumerStep
from taximeter_worker.metrics import Metrics
from taximeter_worker.settings import Settings
from taximeter_worker.tasks import periodic
from taximeter_worker.tasks.beat import QuietScheduler
from taximeter_worker.tasks.deliver_notices import DELIVER
from taximeter_worker.tasks.old_queue import OldQueueStep
from taximeter_worker.tasks.task_broker import TaskAmqp, TaskConsumer, task_options

log = structlog.get_logger(__name__)


def make_app(settings: Settings | None = None) -> Celery:
    """A Celery app with the usage consumer and the tasks.

    Raises:
        ConfigurationError: the environment lacks a setting or holds one that makes no sense.
    """
    settings = settings or Settings.from_env()
    logs.configure(settings.log_format)
    app = Celery("taximeter_worker", amqp=TaskAmqp, set_as_current=False)
    app.conf.update(
        broker_url=split_tls(settings.broker_kombu_url)[0],
        broker_use_ssl=settings.broker_kombu_tls,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # a worker waits for its broker for ever
        broker_channel_error_retry=True,  # nor does it end where the broker refuses it something: a full memory passes
        result_backend=None,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        worker_pool="threads",  # so that one process holds all metrics; prefork works, too
        worker_concurrency=2,
        worker_consumer=TaskConsumer,
        worker_enable_remote_control=False,  # nothing but tasks comes in through Celery
        worker_send_task_events=False,
        worker_hijack_root_logger=True,
        beat_scheduler=QuietScheduler,
        beat_schedule=periodic.BEAT_SCHEDULE,
        timezone="UTC",
        **task_options(settings),
    )
    app.taximeter_settings = settings
    app.taximeter_prices_changed = lambda: _prices_changed(app)
    app.taximeter_notices_due = lambda: _notices_due(app)
    app.taximeter_metrics = Metrics()
    periodic.register(app, settings, app.taximeter_metrics)
    app.steps["worker"].add(UsageConsumerStep)
    app.steps["consumer"].update((PauseStep, OldQueueStep))
    return app


def _prices_changed(app: Celery) -> None:
    try:
        app.send_task(periodic.REPLAY.name, retry=False, ignore_result=True)
    except (OperationalError, OSError) as error:
        log.warning("replay_not_queued", kind=type(error).__name__, hint="the beat will queue it")


def _notices_due(app: Celery) -> None:
    try:
        app.send_task(DELIVER.name, retry=False, ignore_result=True, expires=DELIVER.expires_seconds)
    except (OperationalError, OSError) as error:
        log.warning("notices_not_queued", kind=type(error).__name__, hint="the beat will queue it")


def run(arguments: Sequence[str] = ()) -> int:
    """Run a worker in this process until it is told to stop; returns its exit code.

    ``arguments`` are further options of ``celery worker``, such as ``--loglevel=WARNING``.
    """
    argv = ["worker", "--without-mingle", "--without-gossip", "--loglevel=INFO", *arguments]
    try:
        app = make_app()
        _check_master_keys(app.taximeter_settings)
        # Celery's banner is not JSON.
        app.worker_main(["--quiet", *argv] if app.taximeter_settings.log_format == json_logs.JSON else argv)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def _check_master_keys(settings: Settings) -> None:
    """Refuse to start without the master key that all workers must know.

    A database that does not answer is waited for by the worker itself; it checks again before it books anything.
    """
    with (
        contextlib.suppress(DatabaseUnavailableError, SchemaError, psycopg.Error),
        connection(settings.database_url) as conn,
    ):
        key_register.check_in(conn, settings.masters)


@functools.cache
def shared_app() -> Celery:
    """The app that ``celery -A taximeter_worker`` finds, made from the environment on first use.

    Raises:
        SystemExit: a setting is missing or wrong, or a master key; Celery would bury the sentence in a traceback.
    """
    try:
        app = make_app()
        _check_master_keys(app.taximeter_settings)
    except (ConfigurationError, MasterKeyError) as error:
        raise SystemExit(f"taximeter worker: {error}") from error
    return app
