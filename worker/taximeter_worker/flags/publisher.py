"""Writing the flags of what was committed, and what happens when Redis does not take them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import psycopg
import structlog
from psycopg import Connection

from taximeter_db import flag_debts
from taximeter_db.ledger import booking
from taximeter_db.ledger.events import WorkspaceState
from taximeter_worker import failpoints
from taximeter_worker.errors import FlagsUnavailableError
from taximeter_worker.flags import marks
from taximeter_worker.flags.writer import NO_HOLDS, FlagWriter, Holds
from taximeter_worker.logs import where
from taximeter_worker.metrics import Metrics
from taximeter_worker.outage import Outage

log = structlog.get_logger(__name__)


class FlagPublisher:
    """Writes flags after a commit. Used by several threads at once, each with a connection of its own."""

    def __init__(self, writer: FlagWriter, metrics: Metrics) -> None:
        self._writer = writer
        self._metrics = metrics
        self._outage = Outage("flags_owed", "flags_written_again")

    def publish(
        self, conn: Connection[Any], states: Sequence[WorkspaceState], *, owed: bool, holds: Holds = NO_HOLDS
    ) -> Exception | None:
        """Write the flags of these states. Whatever goes wrong leaves a debt.

        Args:
            conn: in autocommit mode.
            states: as committed, each workspace once.
            owed: the transaction noted the debts of these flags; they are settled when the flags are written.
            holds: those that the usages of this commit name; they are settled with the balances.

        Returns:
            What failed; None when Redis has the flags.

        Raises:
            psycopg.Error: the debts could not be noted; publish again, or have the event delivered again.
        """
        if not states:
            return None
        failpoints.hit("before_flag")
        try:
            flipped, refused = self.write(conn, states, holds)
        except psycopg.Error:
            raise  # the caller's to retry
        except Exception as error:  # noqa: BLE001 -- a flag must not be lost to a fault of ours
            failpoints.hit("before_owing")
            if not owed:
                flag_debts.note(conn, [state.workspace_id for state in states])
            failpoints.hit("after_owing")
            self._metrics.flag_failures.inc(len(states))
            if isinstance(error, FlagsUnavailableError):
                self._outage.failed(count=len(states), why=str(error))
            else:
                log.critical("flags_owed", workspaces=len(states), kind=type(error).__name__, where=where(error))
            return error
        self._outage.ended()
        self._metrics.flag_flips.inc(flipped)
        if owed:
            # A debt that cannot be settled stands, and the flag watch pays it once more.
            with contextlib.suppress(psycopg.Error):
                flag_debts.settle_written(conn, [state for state in states if state.workspace_id not in refused])
        failpoints.hit("after_flag")
        return None

    def write(
        self, conn: Connection[Any], states: Sequence[WorkspaceState], holds: Holds = NO_HOLDS
    ) -> tuple[int, set[str]]:
        """Write the flags of these states; returns how many changed, and whose state Redis refused as it was given.

        Raises:
            FlagsUnavailableError: Redis did not take them; it may have taken a part.
            psycopg.Error: the database failed.
        """
        written = self._writer.write(states, holds)
        self._metrics.flags_left_out.inc(written.left_out)
        if written.refused:
            written.flipped += self._write_again(conn, written.refused)
        return written.flipped, set(written.refused)

    def _write_again(self, conn: Connection[Any], workspace_ids: list[str]) -> int:
        """Settle states that Redis refused: it had newer ones. Returns the number of flags that changed.

        Usually another worker was faster. But a Redis position that was read *before* the database and is still ahead of
        it, or as far with another balance, can only come from a database that went back in time: then all flags are
        rebuilt.
        """
        seen = self._writer.call(marks.read_positions, workspace_ids)
        fresh = booking.read_states(conn, workspace_ids)
        behind = [s.workspace_id for s in fresh if seen[s.workspace_id].ahead_of(s)]
        if behind:
            log.critical("database_behind_flags", workspaces=behind[:5], hint="it was restored; all flags are rebuilt")
            flag_debts.note(conn, behind)
            self._writer.call(marks.forget_ready)
        current = [s for s in fresh if not seen[s.workspace_id].ahead_of(s)]
        return self._writer.write(current).flipped
