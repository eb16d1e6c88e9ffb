"""What a repetition repairs: missing workspaces, partitions and keys, and races that were lost to another writer.

Booking usages and booking payments share it. A transaction that fails here was rolled back whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from psycopg import Connection, errors

from taximeter_db.backoff import LOST_RACES
from taximeter_db.ledger import binary_rows, partitions
from taximeter_db.ledger.claims import OptimisticClaims
from taximeter_db.ledger.common import MissingPartitionError, MissingWorkspacesError, StaleKeysError
from taximeter_db.ledger.context import BookingContext
from taximeter_db.ledger.events import Outcome, Payment, Policy, Rejected, Usage
from taximeter_db.sql import statement

Event = TypeVar("Event", Usage, Payment)

ATTEMPTS_MAX = 20
_CREATE_WORKSPACES = statement("create_workspaces")
_WORKSPACES_KNOWN_MAX = 200_000


class Retry(msgspec.Struct, Generic[Event], frozen=True):
    """Runs one kind of booking transaction until it commits or fails for a reason that no repetition repairs.

    Attributes:
        transact: The transaction: events and rejections, all or nothing.
    """

    conn: Connection[Any]
    context: BookingContext
    outcome: Outcome
    transact: Callable[[list[Event], list[Rejected]], None]

    def run(self, events: Sequence[Event], rejected: Sequence[Rejected]) -> None:
        """Book these events and quarantine these rejections.

        Raises:
            psycopg.Error: The database refuses, or went away; see `isolation` for what is done about refusals.
        """
        conn, context = self.conn, self.context
        events, rejected = list(events), list(rejected)
        if context.claims is not None and not context.policy.quarantine_unknown:
            _create_unseen(conn, {event.workspace_id for event in events}, context.policy, context.claims)
        for attempt in range(ATTEMPTS_MAX):
            try:
                self.transact(events, rejected)
            except StaleKeysError as stale:
                if context.payload_crypto is None or attempt + 1 == ATTEMPTS_MAX:
                    raise
                context.payload_crypto.forget(stale.workspace_ids)
            except MissingWorkspacesError as missing:
                if context.claims is not None:
                    context.claims.record_missing(missing.workspace_ids)
                if context.policy.quarantine_unknown:
                    events, unknown = self._without(events, set(missing.workspace_ids))
                    rejected += unknown
                else:
                    _create(conn, missing.workspace_ids, context.policy)
            except MissingPartitionError as missing:
                if attempt + 1 == ATTEMPTS_MAX or not partitions.ensure_at(conn, missing.moments):
                    raise
            except (
                errors.UniqueViolation,
                errors.DeadlockDetected,
                errors.SerializationFailure,
                errors.LockNotAvailable,
            ) as lost:
                if attempt + 1 == ATTEMPTS_MAX:
                    raise
                claims = context.claims
                if isinstance(lost, errors.UniqueViolation) and claims is not None and claims.expects_clean_batch:
                    claims.record_repeat(rolled_back=True)  # what follows is claimed the cautious way
                else:
                    time.sleep(LOST_RACES.seconds(attempt))
            else:
                return
        raise RuntimeError("a batch kept missing workspaces that were just created")  # pragma: no cover

    def _without(self, events: list[Event], unknown: set[str]) -> tuple[list[Event], list[Rejected]]:
        """The events of known workspaces, and rejections of the others, which the outcome names too."""
        rejected = [
            Rejected.of(event, "unknown_workspace", _unknown(event.workspace_id))
            for event in events
            if event.workspace_id in unknown
        ]
        self.outcome.refused.extend(rejected)
        return [event for event in events if event.workspace_id not in unknown], rejected


def _create_unseen(conn: Connection[Any], workspace_ids: set[str], policy: Policy, claims: OptimisticClaims) -> None:
    """Create the workspaces that were not seen here yet.

    One that is found missing in the transaction costs all of it; a statement that creates what is missing costs less,
    unless there are many.
    """
    if unseen := workspace_ids - claims.known_workspaces:
        if not claims.expects_existing(len(unseen)):
            claims.record_creation(len(unseen), created=_create(conn, unseen, policy))
        if len(claims.known_workspaces) > _WORKSPACES_KNOWN_MAX:
            claims.known_workspaces.clear()
        claims.known_workspaces |= unseen


def _unknown(workspace_id: str) -> str:
    return (
        f"Workspace {workspace_id} is not known and unknown workspaces are quarantined here. Create it with "
        f"`taximeter workspace set {workspace_id}`, then replay this event."
    )


def _create(conn: Connection[Any], workspace_ids: Iterable[str], policy: Policy) -> int:
    """Create those that do not exist; returns how many there were."""
    return conn.execute(
        _CREATE_WORKSPACES,
        {
            "workspace_ids": sorted(workspace_ids),
            "minimum": binary_rows.Numeric(policy.minimum),
            "low": binary_rows.Numeric(policy.low),
        },
    ).rowcount
