"""Keeps the flag cache warm and complete, and pays flag debts."""

from __future__ import annotations

from typing import Any

import structlog
from psycopg import Connection

from taximeter_db import flag_debts
from taximeter_db.ledger import booking
from taximeter_worker.flags import marks
from taximeter_worker.flags.connecting import server_state
from taximeter_worker.flags.marks import HoldTerms
from taximeter_worker.flags.publisher import FlagPublisher
from taximeter_worker.flags.rebuild import rebuild
from taximeter_worker.flags.scripts import load_hold_script
from taximeter_worker.flags.writer import FlagWriter
from taximeter_worker.metrics import Metrics

log = structlog.get_logger(__name__)

FLAG_WATCH_SECONDS = 1.0
DEFAULT_TERMS = HoldTerms()


class FlagWatch:
    """Rebuilds the flags when Redis lost some or the database went back in time, and writes the flags that are owed."""

    def __init__(self, writer: FlagWriter, metrics: Metrics, terms: HoldTerms = DEFAULT_TERMS) -> None:
        self._terms = terms
        self._writer = writer
        self._metrics = metrics
        self._publisher = FlagPublisher(writer, metrics)

    def __call__(self, conn: Connection[Any]) -> None:
        """One look.

        Raises:
            FlagsUnavailableError: Redis does not answer, or takes no writes.
        """
        if not self._writer.available:
            return
        seen = self._writer.call(marks.read_cluster_position)
        self._metrics.answered("redis")
        # Read after what Redis has seen of it, whichever worker noted that: then it is further on, or history is another.
        position = flag_debts.cluster_position(conn)
        if seen and position and position.went_back_from(seen):
            if position.promoted_from(seen):
                log.warning(
                    "database_promoted", seen=seen, now=position, hint="another server leads now; all flags are rebuilt"
                )
            else:
                log.critical(
                    "database_behind_flags", seen=seen, now=position, hint="it was restored; all flags are rebuilt"
                )
            self._writer.call(marks.forget_ready)
        mark, server = self._writer.call(lambda client: (marks.read_ready(client), server_state(client)))
        self._metrics.flag_memory.set(server.memory_used)
        self._writer.sparse = server.nearly_full
        why = marks.why_cold(mark, server, flag_debts.epoch(conn))
        if why is not None:
            log.warning("flags_cold", why=why, hint="all flags are rebuilt")
            if (
                self._writer.call(lambda client: rebuild(conn, client, only_if_cold=True, terms=self._terms))
                is not None
            ):
                self._metrics.flag_rebuilds.inc()
        elif mark is not None and mark.under(self._terms) != mark:
            self._writer.call(marks.note_ready, mark.under(self._terms))
        self._writer.call(load_hold_script)
        if position and position != seen:
            self._writer.call(marks.note_cluster_position, position)
        self._pay(conn)

    def _pay(self, conn: Connection[Any]) -> None:
        if debts := flag_debts.owed(conn):
            states = booking.read_states(conn, [debt.workspace_id for debt in debts])
            self._publisher.write(conn, states)
            flag_debts.settle(conn, debts)
            log.info("flags_paid", workspaces=len(debts))
