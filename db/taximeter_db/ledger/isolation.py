"""What one workspace's data makes PostgreSQL refuse costs the others a repetition, and not their booking.

A refusal that no repetition repairs belongs to an event, or to what its workspace has come to: a balance at the end of
its range, a damaged page. Amounts out of range are found by calculation, all at once. For any other refusal the batch is
halved, by workspaces first, until the culprit is alone; the events that are refused go to quarantine, whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, Generic

import psycopg
from psycopg import errors

from taximeter_db import schema
from taximeter_db.ledger import amounts_in_range
from taximeter_db.ledger.common import MissingPartitionError, UnreadableKeysError
from taximeter_db.ledger.events import Rejected
from taximeter_db.ledger.retry import Event, Retry

REFUSALS: Final = (
    psycopg.DataError,
    psycopg.IntegrityError,
    errors.DataCorrupted,
    errors.IndexCorrupted,
    errors.ProgramLimitExceeded,
    MissingPartitionError,
    UnreadableKeysError,
)
"""What data can cause. A missing column, right or connection concerns everybody and is waited for."""
_OURS: Final = (errors.InvalidBinaryRepresentation, errors.BadCopyFileFormat)
"""Data errors that say that code and schema do not fit each other: no event's fault."""
_ALONE_MAX: Final = 16
"""At most this many events of a workspace are found one by one; after that, what is refused is rejected as a whole."""


class Isolation(Generic[Event]):
    """Books a batch around what the database refuses."""

    def __init__(self, retry: Retry[Event]) -> None:
        self._retry: Retry[Event] = retry
        self._alone: Counter[str] = Counter()

    def book(self, events: Sequence[Event], rejected: Sequence[Rejected]) -> None:
        """Book what can be booked, and quarantine the rest.

        Raises:
            SchemaError: Refused on a schema that this version does not know: nobody can say whose fault it is.
            psycopg.Error: As `Retry.run`, and refusals of the rejections themselves.
        """
        try:
            self._retry.run(events, rejected)
        except _OURS:
            schema.require_same(self._retry.conn)
            raise
        except REFUSALS as refusal:
            if not events:
                raise
            if rejected:
                # Apart from the events: none of them is to blame for what stands beside it.
                self._retry.run([], rejected)
                self.book(events, ())
                return
            self._book_around(events, refusal)

    def _book_around(self, events: Sequence[Event], refusal: Exception) -> None:
        conn: psycopg.Connection[Any] = self._retry.conn
        if isinstance(refusal, errors.NumericValueOutOfRange):
            within, beyond = amounts_in_range.split(conn, events)
            if beyond:
                self._reject(beyond, "out_of_range", _BEYOND_RANGE)
                if within:
                    self.book(within, ())
                return
        schema.require_same(conn)
        workspace_ids = sorted({event.workspace_id for event in events})
        if len(workspace_ids) > 1:
            first = set(workspace_ids[: len(workspace_ids) // 2])
            self.book([event for event in events if event.workspace_id in first], ())
            self.book([event for event in events if event.workspace_id not in first], ())
        elif len(events) > 1 and self._alone[workspace_ids[0]] < _ALONE_MAX:
            middle = len(events) // 2
            self.book(events[:middle], ())
            self.book(events[middle:], ())
        else:
            self._alone[workspace_ids[0]] += 1
            self._reject(events, "not_storable", _explain(refusal))

    def _reject(self, events: Sequence[Event], reason: str, detail: str) -> None:
        rejected = [Rejected.of(event, reason, detail) for event in events]
        self._retry.run([], rejected)
        self._retry.outcome.refused.extend(rejected)


_BEYOND_RANGE: Final = (
    "This event cannot be stored: its cost or amount, or the balance or total that it leads to, lies beyond ±10^15 USD. "
    "Correct the event or the price, then replay it."
)


def _explain(refusal: Exception) -> str:
    # Not PostgreSQL's own words, which may quote what the event says.
    state = getattr(refusal, "sqlstate", None)
    kind = f"{type(refusal).__name__}, {state}" if state else type(refusal).__name__
    return (
        f"PostgreSQL refuses to store this event in its workspace ({kind}); other workspaces are not concerned. Its log "
        "says why. Remove the cause, then replay the event."
    )
