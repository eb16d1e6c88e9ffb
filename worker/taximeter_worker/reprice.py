"""Repricing: one compensating adjustment for each workspace whose usages cost something else under the present book.

History is never changed. Each workspace is one transaction: the list of its usages with old and new cost, the
adjustment, and the debt of its flag. So a run that dies half-way has done some workspaces whole and the others not at
all; what was done is known by the list, and running again posts the rest and nothing twice.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from psycopg import Connection

from taximeter import names
from taximeter_db import flags_state, ledger
from taximeter_db.money import format_usd, numeric_text
from taximeter_worker import failpoints
from taximeter_worker.decode import decode_message
from taximeter_worker.errors import TaximeterWorkerError
from taximeter_worker.pricing import PriceBook
from taximeter_worker.rated import Change, Rated, Selection, count, usages, workspaces

LOCK = 7_480_312_913
"""Advisory lock: one repricing at a time."""
LIST_ROWS = 2_000
REASON_CHARACTERS_MAX = 500

Publish = Callable[[list[ledger.WorkspaceState]], object]


class RepriceError(TaximeterWorkerError):
    """A repricing that cannot be done, or not now; what it has posted before stands."""


class Posted(msgspec.Struct):
    """What was posted for one workspace: nothing but the list (`payment_id` None) where old and new add up alike."""

    change: Change
    payment_id: str | None
    repricing: int


def post(
    conn: Connection[Any],
    selection: Selection,
    book: PriceBook,
    *,
    reason: str,
    by: str,
    publish: Publish,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Iterator[Posted]:
    """Post the adjustments, workspace by workspace, each as soon as it is asked for.

    Args:
        conn: From ``booking_connection``, outside a transaction.
        selection: Which usages.
        book: The present book, whole.
        reason: Kept with the run and in each payment's note.
        by: Who does it.
        publish: Given each workspace's state after its commit, to write its flag; a worker writes it if this fails.
        progress: Called with the number of workspaces done and of all.

    Raises:
        RepriceError: Another repricing is running, or an adjustment cannot be booked.
    """
    if not reason.strip() or len(reason) > REASON_CHARACTERS_MAX:
        raise RepriceError(
            f"Say why, in 1 to {REASON_CHARACTERS_MAX} characters: the reason stays with each adjustment."
        )
    with _alone(conn):
        run: int | None = None
        found = workspaces(conn, selection, book.revision)
        for done, (workspace_id, first, _) in enumerate(found, 1):
            with conn.transaction():
                listed = _List(conn, workspace_id, book.revision)
                for usage in usages(conn, selection, book, workspace_id, below=book.revision, first=first):
                    if count(listed.change, usage):
                        run = run or _begin(conn, selection, book, reason, by)
                        listed.add(run, usage)
                posted = listed.finish(run, reason) if run is not None and listed.change.usages else None
                failpoints.hit("before_reprice_commit")
            failpoints.hit("after_reprice_commit")
            if posted is not None:
                publish(ledger.read_states(conn, [workspace_id]))
                yield posted
            progress(done, len(found))


@contextmanager
def _alone(conn: Connection[Any]) -> Iterator[None]:
    row = conn.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone()
    if not row or not row[0]:
        raise RepriceError("Another repricing is running. Wait for its end; what it posts will not be posted again.")
    try:
        yield
    finally:
        if not conn.broken:
            conn.execute("SELECT pg_advisory_unlock(%s)", [LOCK])


def _begin(conn: Connection[Any], selection: Selection, book: PriceBook, reason: str, by: str) -> int:
    row = conn.execute(
        "INSERT INTO taximeter.repricings (created_by, reason, revision, since, until, tool, workspace_id)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING repricing",
        (by, reason, book.revision, selection.since, selection.until, selection.tool, selection.workspace),
    ).fetchone()
    assert row is not None  # noqa: S101 - for the type checker: one row was inserted
    return int(row[0])


class _List:
    """The list behind one workspace's adjustment, written in portions, and the adjustment at its end."""

    def __init__(self, conn: Connection[Any], workspace_id: str, revision: int) -> None:
        self.change = Change(workspace_id)
        self._conn = conn
        self._revision = revision
        self._rows: list[tuple[Any, ...]] = []
        self._digest = hashlib.sha256()

    def add(self, run: int, usage: Rated) -> None:
        old, new = usage.old, usage.new or 0
        self._digest.update(b"%d %d %d\n" % (usage.seq, old, new))
        self._rows.append((self.change.workspace_id, usage.seq, run, numeric_text(old), numeric_text(new)))
        if len(self._rows) >= LIST_ROWS:
            self._write()

    def _write(self) -> None:
        columns = "workspace_id, seq, repricing, old_cost, new_cost"
        with (
            self._conn.cursor() as cursor,
            cursor.copy(f"COPY taximeter.repriced_usages ({columns}) FROM STDIN") as copy,
        ):
            for row in self._rows:
                copy.write_row(row)
        self._rows = []

    def finish(self, run: int, reason: str) -> Posted:
        self._write()
        change = self.change
        # The same list under the same book is the same payment: even without our own list it could not be booked twice.
        payment_id = f"reprice-{self._revision}-{self._digest.hexdigest()[:32]}" if change.difference else None
        self._conn.execute(
            "INSERT INTO taximeter.repriced_workspaces"
            " (workspace_id, repricing, usages, old_cost, new_cost, payment_id) VALUES (%s, %s, %s, %s, %s, %s)",
            (change.workspace_id, run, change.usages, numeric_text(change.old), numeric_text(change.new), payment_id),
        )
        if payment_id is not None:
            outcome = ledger.book(self._conn, [], [_payment(change, payment_id, run, self._revision, reason)])
            if outcome.payments_booked != 1:
                why = outcome.refused[0].detail if outcome.refused else "a payment of this id was booked before"
                raise RepriceError(f"The adjustment of {change.workspace_id} cannot be booked: {why}")
            # In the same transaction: should we die before the flag is written, a worker writes it.
            flags_state.note_stale(self._conn, [change.workspace_id])
        return Posted(change, payment_id, run)


def _payment(change: Change, payment_id: str, run: int, revision: int, reason: str) -> ledger.Payment:
    """The adjustment as an event, read as the worker would read it: one rule book, one fingerprint."""
    now = time.time_ns() // 1000
    event = {
        "specversion": "1.0",
        "id": payment_id,
        "source": "/reprice",
        "type": names.PAYMENT_TYPE,
        "subject": change.workspace_id,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now // 1_000_000)),
        "data": {
            "amount": format_usd(change.difference),
            "kind": "adjustment",
            "transaction": {"provider": "taximeter", "reference": f"repricing {run}"},
            "note": f"{change.usages:,} usages repriced under revision {revision} of the price book: {reason}",
        },
    }
    decoded = decode_message(msgspec.json.encode(event), names.CONTENT_TYPE_EVENT, now=now)
    for refused in decoded.rejected:
        raise RepriceError(f"The adjustment of {change.workspace_id} cannot be booked: {refused.detail}")
    return decoded.payments[0]
