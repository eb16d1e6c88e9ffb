"""Compares flags in Redis with the database, some at a time, and repairs what differs.

Every flag has its way into Redis, and the flag watch rebuilds a cache that is not whole. This is for what nobody foresaw: a flag
that somebody deleted or changed, or that a server lost without a restart.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Iterable, Sequence
from typing import Any

import redis
import structlog
from psycopg import Connection

from taximeter import names
from taximeter_db import flag_debts
from taximeter_db.ledger import booking
from taximeter_db.ledger.events import WorkspaceState
from taximeter_worker.flags import marks
from taximeter_worker.flags.connecting import Client
from taximeter_worker.flags.publisher import FlagPublisher
from taximeter_worker.flags.writer import FlagWriter
from taximeter_worker.metrics import Metrics

log = structlog.get_logger(__name__)

FLAG_AUDIT_SECONDS = 5.0
SAMPLE_WORKSPACES = 1_000
"""About 5 ms of Redis's time: a million workspaces are seen in 90 minutes by one worker."""
REBUILD_SHARE = 10
"""Where one flag in this many differs, more are likely to: all are rebuilt."""
REBUILD_DRIFTS_MIN = 5
DEBTS_MAX = 10_000
MISSING, WRONG = "missing", "wrong"


class FlagAudit:
    """One round looks at the next workspaces by id, each worker from another place on.

    A difference counts as drift if it is still there in the next round and the workspace has not changed meanwhile: until then
    it may be a batch whose flags are about to be written.
    """

    def __init__(self, writer: FlagWriter, metrics: Metrics) -> None:
        self._writer = writer
        self._metrics = metrics
        self._publisher = FlagPublisher(writer, metrics)
        self._after = secrets.choice(string.digits + string.ascii_letters)
        self._sampled = 0
        self._suspects: dict[str, int] = {}
        """Workspaces that differed in the last round, and their version then."""

    def __call__(self, conn: Connection[Any]) -> None:
        """One round.

        Raises:
            FlagsUnavailableError: Redis does not answer.
        """
        if not self._writer.available:
            return
        self._repair(conn)
        sample = flag_debts.states_after(conn, self._after, SAMPLE_WORKSPACES)
        self._sampled = len(sample)
        self._after = sample[-1].workspace_id if len(sample) == SAMPLE_WORKSPACES else ""
        differing = self._differing(sample)
        self._suspects = {state.workspace_id: state.version for state, _ in differing}

    def _differing(self, states: Sequence[WorkspaceState]) -> list[tuple[WorkspaceState, str]]:
        """The states that Redis contradicts, and how: its flag says something else, or it has none."""
        stored = self._writer.call(_read_flags, [state.workspace_id for state in states])
        return [
            (state, MISSING if flag is None else WRONG)
            for state, flag in zip(states, stored, strict=True)
            if flag != ("1" if state.enabled else "0", state.status, _used_up(state.budgets))
            and not (flag is None and state.enabled and not _used_up(state.budgets) and self._writer.sparse)
        ]

    def _repair(self, conn: Connection[Any]) -> None:
        suspects, self._suspects = self._suspects, {}
        owed = {debt.workspace_id for debt in flag_debts.owed(conn, DEBTS_MAX)}
        if not suspects or len(owed) == DEBTS_MAX:
            return  # Redis is far behind, and the flag watch works on it
        states = booking.read_states(conn, suspects.keys() - owed)
        unchanged = [state for state in states if state.version == suspects[state.workspace_id]]
        drifted = self._differing(unchanged)
        if not drifted:
            return
        for _, kind in drifted:
            self._metrics.flag_drift.labels(kind).inc()
        log.error(
            "flags_drifted",
            workspaces=len(drifted),
            first=[state.workspace_id for state, _ in drifted[:5]],
            hint="somebody else changed or lost them; they are written again",
        )
        if len(drifted) >= max(REBUILD_DRIFTS_MIN, self._sampled / REBUILD_SHARE):
            self._writer.call(marks.forget_ready)
            return
        self._publisher.write(conn, [state for state, _ in drifted])


def _read_flags(client: Client, workspace_ids: Iterable[str]) -> list[tuple[str, str, str] | None]:
    """Enabled, status and used-up budgets of each flag; None where there is none, or one that cannot be read."""
    pipeline = client.pipeline(transaction=False)
    for workspace_id in workspace_ids:
        pipeline.hmget(names.flag_key(workspace_id), "enabled", "status", "budgets")
    return [
        None if isinstance(values, redis.ResponseError) or None in values[:2] else (*values[:2], _used_up(values[2]))
        for values in pipeline.execute(raise_on_error=False)
    ]


def _used_up(budgets: str | None) -> str:
    """The list of used-up budgets, if there is any."""
    return "" if budgets in {None, "[]"} else str(budgets)
