"""The Celery tasks: work that is not a stream. All of them may run twice, late or at the same time without harm.

They come through a queue that only our own code writes to; usage and payments never do.
"""

from __future__ import annotations

from typing import Any

import structlog

from taximeter_db import partitions
from taximeter_db.connect import booking_connection, connection
from taximeter_db.sealing import Sealer
from taximeter_worker import flags
from taximeter_worker.booker import Booker, Prices, limits_of, policy_of
from taximeter_worker.flags import FlagWriter
from taximeter_worker.metrics import Metrics
from taximeter_worker.pricing import load_book
from taximeter_worker.rebuild import rebuild
from taximeter_worker.replay import replay_price_missing
from taximeter_worker.settings import Settings

log = structlog.get_logger(__name__)

REPLAY = "taximeter.replay_price_missing"
PARTITIONS = "taximeter.ensure_partitions"
REBUILD = "taximeter.rebuild_flags"

BEAT_SCHEDULE: dict[str, dict[str, Any]] = {
    # A price set just before an event arrived at a worker that did not know it yet: nothing else would notice.
    "replay": {"task": REPLAY, "schedule": 60.0, "options": {"expires": 60}},
    "partitions": {"task": PARTITIONS, "schedule": 6 * 3600.0, "options": {"expires": 3600}},
}


def register(app: Any, settings: Settings) -> None:
    """Add the tasks to a Celery app."""

    @app.task(name=REPLAY)
    def replay_missing_prices() -> int:
        """Book the quarantined events that have a price now."""
        conn = booking_connection(settings.database_url)
        writer = FlagWriter(settings.flags_redis_url, settings.redis_timeout_seconds)
        try:
            book = load_book(conn)
            prices = Prices()
            prices.use(book)
            # Its metrics go nowhere: the worker's own count what came through the broker.
            booker = Booker(settings, prices, writer, Metrics())
            booked = replay_price_missing(
                conn,
                lambda states: booker.publish(conn, states),
                book=book,
                limits=limits_of(settings),
                policy=policy_of(settings),
                sealer=Sealer(settings.masters),
            )
        finally:
            writer.close()
            conn.close()
        if booked:
            log.info("replayed", events=booked, revision=book.revision)
        return booked

    @app.task(name=PARTITIONS)
    def ensure_partitions() -> int:
        """Make the partitions of the months to come."""
        with connection(settings.database_url) as conn:
            return partitions.ensure(conn)

    @app.task(name=REBUILD)
    def rebuild_flags() -> int:
        """Make the flag cache anew."""
        client = flags.connect_flags(settings.flags_redis_url, settings.redis_timeout_seconds)
        try:
            with connection(settings.database_url) as conn:
                done = rebuild(conn, client)
                return done.workspaces if done else 0
        finally:
            client.close()
