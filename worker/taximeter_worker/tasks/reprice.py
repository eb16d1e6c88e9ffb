"""Repricing: one compensating adjustment for each workspace whose usages cost something else under the present book.

History is never changed. Each workspace is one transaction: the list of its usages with old and new cost, the
adjustment, and the debt of its flag. So a run that dies half-way has done some workspaces whole and the others not at
all; what was done is known by the list, and running again posts the rest and nothing twice.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from psycopg import Connection

from taximeter import names
from taximeter.pricing.price_book import PriceBook
from taximeter_db import locks
from taximeter_db.budgets import setting
from taximeter_db.ledger import booking
from taximeter_db.ledger.events import Payment, WorkspaceState
from taximeter_db.locks import AdvisoryLock
from taximeter_db.money import format_usd, numeric_text
from taximeter_db.sql import statement
from taximeter_worker import failpoints
from taximeter_worker.decode.message import decode_message
from taximeter_worker.errors import TaximeterWorkerError
from taximeter_worker.tasks.recost import Change, Recosted, Selection, candidates, count, usages

IN_USE_AFTER = dt.timedelta(seconds=5)
"""Workers look for a new revision twice a second; the rest is for the batch that is being booked."""
LIST_ROWS = 2_000
REASON_CHARACTERS_MAX = 500

Publish = Callable[[list[WorkspaceState]], object]


class RepriceError(TaximeterWorkerError):
    """A repricing that cannot be done, or not now; what it has posted before stands."""


class Repricing(msgspec.Struct, frozen=True):
    """Which usages are to be adjusted, why (kept with the run and in each payment's note), and by whom."""

    selection: Selection
    reason: str
    by: str


class Posted(msgspec.Struct):
    """What was posted for one workspace: nothing but the list (`payment_id` None) where old and new add up alike."""

    change: Change
    payment_id: str | None
    repricing: int


def wait_until_in_use(conn: Connection[Any], book: PriceBook) -> dt.datetime:
    """Wait until every worker that runs well prices by this book, and has booked what it had priced before.

    Returns:
        The time from which on nothing should be booked under an older revision: see `recost.booked_since`.
    """
    row = conn.execute(statement("revision_age"), [book.revision]).fetchone()
    if row is None:  # an empty book
        return dt.datetime.now(dt.UTC)
    age, now = row
    wait = max(dt.timedelta(0), IN_USE_AFTER - age)
    time.sleep(wait / dt.timedelta(seconds=1))
    return now + wait  # type: ignore[no-any-return]


def post(
    conn: Connection[Any],
    repricing: Repricing,
    book: PriceBook,
    *,
    publish: Publish,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Iterator[Posted]:
    """Post the adjustments, workspace by workspace, each as soon as it is asked for.

    Args:
        conn: From ``booking_connection``, outside a transaction.
        repricing: What is to be done.
        book: The present book, whole.
        publish: Given each workspace's state after its commit, to write its flag; a worker writes it if this fails.
        progress: Called with the number of workspaces done and of all.

    Raises:
        RepriceError: Another repricing is running, or an adjustment cannot be booked.
    """
    selection, reason = repricing.selection, repricing.reason
    if not reason.strip() or len(reason) > REASON_CHARACTERS_MAX:
        raise RepriceError(
            f"Say why, in 1 to {REASON_CHARACTERS_MAX} characters: the reason stays with each adjustment."
        )
    with locks.try_hold(conn, AdvisoryLock.REPRICE) as alone:
        if not alone:
            raise RepriceError(
                "Another repricing is running. Wait for its end; what it posts will not be posted again."
            )
        run: int | None = None
        found = candidates(conn, selection, book.revision)
        for done, candidate in enumerate(found, 1):
            workspace_id = candidate.workspace_id
            with conn.transaction():
                listed = _List(conn, workspace_id, book.revision)
                for usage in usages(conn, selection, book, candidate, below=book.revision):
                    if count(listed.change, usage):
                        run = run or _begin(conn, repricing, book)
                        listed.add(run, usage)
                posted = listed.finish(run, reason) if run is not None and listed.change.usages else None
                failpoints.hit("before_reprice_commit")
            failpoints.hit("after_reprice_commit")
            if posted is not None:
                publish(booking.read_states(conn, [workspace_id]))
                yield posted
            progress(done, len(found))


def _begin(conn: Connection[Any], repricing: Repricing, book: PriceBook) -> int:
    selection = repricing.selection
    row = conn.execute(
        statement("insert_repricing"),
        (
            repricing.by,
            repricing.reason,
            book.revision,
            selection.since,
            selection.until,
            selection.tool,
            selection.workspace,
        ),
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

    def add(self, run: int, usage: Recosted) -> None:
        old, new = usage.old, usage.new or 0
        self._digest.update(b"%d %d %d\n" % (usage.seq, old, new))
        self._rows.append((self.change.workspace_id, usage.seq, run, numeric_text(old), numeric_text(new)))
        if len(self._rows) >= LIST_ROWS:
            self._write()

    def _write(self) -> None:
        with (
            self._conn.cursor() as cursor,
            cursor.copy(statement("copy_repriced_usages")) as copy,
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
            statement("insert_repriced_workspace"),
            (change.workspace_id, run, change.usages, numeric_text(change.old), numeric_text(change.new), payment_id),
        )
        if payment_id is not None:
            outcome = booking.book(self._conn, [], [_payment(change, payment_id, run, self._revision, reason)])
            if outcome.payments_booked != 1:
                why = outcome.refused[0].detail if outcome.refused else "a payment of this id was booked before"
                raise RepriceError(f"The adjustment of {change.workspace_id} cannot be booked: {why}")
        setting.count_repriced(self._conn, change.workspace_id, run)
        return Posted(change, payment_id, run)


def _payment(change: Change, payment_id: str, run: int, revision: int, reason: str) -> Payment:
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
