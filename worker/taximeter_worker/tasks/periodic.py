"""The Celery tasks: work that is not a stream. All of them may run twice, late or at the same time without harm.

They come through a queue that only our own code writes to; usage and payments never do.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from functools import partial
from typing import Any

import structlog
from celery import Celery

from taximeter_db import quarantine
from taximeter_db.connect import booking_connection, connection
from taximeter_db.crypto.payload_crypto import PayloadCrypto
from taximeter_db.ledger import partitions
from taximeter_db.notices import deliveries
from taximeter_worker.consume.batch import hold_terms_of, limits_of, policy_of
from taximeter_worker.flags.connecting import connect_flags
from taximeter_worker.flags.publisher import FlagPublisher
from taximeter_worker.flags.rebuild import rebuild
from taximeter_worker.flags.writer import FlagWriter
from taximeter_worker.metrics import Metrics
from taximeter_worker.notices.deliverer import Deliverer
from taximeter_worker.pricing.loading import load_book
from taximeter_worker.settings import Settings
from taximeter_worker.tasks.budget_periods import END_PERIODS, end_periods
from taximeter_worker.tasks.close_statements import CLOSE_STATEMENTS, close_due
from taximeter_worker.tasks.definition import TaskDefinition, add
from taximeter_worker.tasks.deliver_notices import DELIVER
from taximeter_worker.tasks.expire_grants import EXPIRE_GRANTS, expire_due
from taximeter_worker.tasks.replay import ReplayContext, replay_waiting
from taximeter_worker.tasks.roll_up import ROLL_UP, roll_up

log = structlog.get_logger(__name__)

# The beat repeats what a changed price book asks for: a price set just before an event arrived at a worker that did not
# know it yet would otherwise wait for the next change.
REPLAY = TaskDefinition("taximeter.replay_price_missing", every_seconds=60.0, expires_seconds=60.0)
PARTITIONS = TaskDefinition("taximeter.ensure_partitions", every_seconds=6 * 3600.0, expires_seconds=3600.0)
FORGET = TaskDefinition("taximeter.forget_dismissed", every_seconds=3600.0, expires_seconds=3600.0)
REBUILD = TaskDefinition("taximeter.rebuild_flags")

BEAT_SCHEDULE: dict[str, dict[str, Any]] = {
    "replay": REPLAY.schedule(),
    "forget": FORGET.schedule(),
    "partitions": PARTITIONS.schedule(),
    "roll_up": ROLL_UP.schedule(),
    "notices": DELIVER.schedule(),
    "budget_periods": END_PERIODS.schedule(),
    "statements": CLOSE_STATEMENTS.schedule(),
    "grants": EXPIRE_GRANTS.schedule(),
}


def register(app: Celery, settings: Settings, metrics: Metrics) -> None:
    """Add the tasks to a Celery app."""

    def replay_missing_prices() -> int:
        """Book the quarantined events that have a price now, or whose time has come."""
        with (
            contextlib.closing(FlagWriter(settings.flags_redis_url, settings.redis_timeout_seconds)) as writer,
            contextlib.closing(booking_connection(settings.database_url)) as conn,
        ):
            book = load_book(conn)
            publisher = FlagPublisher(writer, metrics)
            booked = replay_waiting(
                conn,
                lambda states, holds: publisher.publish(conn, states, owed=True, holds=holds),
                book=book,
                context=ReplayContext(limits_of(settings), policy_of(settings), PayloadCrypto(settings.masters)),
            )
        if booked:
            log.info("replayed", events=booked, revision=book.revision)
        return booked

    def ensure_partitions() -> int:
        """Make the partitions of the months to come."""
        with connection(settings.database_url) as conn:
            return partitions.ensure(conn)

    def forget_dismissed() -> int:
        """Empty the events that were dismissed long ago, and delete notices that ended long ago."""
        with connection(settings.database_url) as conn:
            done = deliveries.forget(conn)
            if settings.quarantine_days:
                done += quarantine.forget_dismissed(conn, older_than=dt.timedelta(days=settings.quarantine_days))
            return done

    def rebuild_flags() -> int:
        """Write all flags again."""
        with (
            contextlib.closing(connect_flags(settings.flags_redis_url, settings.redis_timeout_seconds)) as client,
            connection(settings.database_url) as conn,
        ):
            done = rebuild(conn, client, terms=hold_terms_of(settings))
            return done.workspaces if done else 0

    def roll_up_for_a_while() -> int:
        """Bring the rollups closer to the log."""
        with connection(settings.database_url) as conn:
            return roll_up(conn)

    def end_budget_periods() -> int:
        """Lift what budgets had used up in periods that have ended."""
        with (
            contextlib.closing(FlagWriter(settings.flags_redis_url, settings.redis_timeout_seconds)) as writer,
            contextlib.closing(booking_connection(settings.database_url)) as conn,
        ):
            return end_periods(conn, FlagPublisher(writer, metrics))

    add(app, metrics, CLOSE_STATEMENTS, partial(close_due, settings.database_url))
    add(app, metrics, EXPIRE_GRANTS, partial(expire_due, settings, metrics))
    add(app, metrics, END_PERIODS, end_budget_periods)
    add(app, metrics, REPLAY, replay_missing_prices)
    add(app, metrics, PARTITIONS, ensure_partitions)
    add(app, metrics, FORGET, forget_dismissed)
    add(app, metrics, REBUILD, rebuild_flags)
    add(app, metrics, ROLL_UP, roll_up_for_a_while)
    add(app, metrics, DELIVER, Deliverer(settings, metrics).run)
