"""Booking what was quarantined, once it can be.

The entry is resolved and its event booked in one transaction, so however often and by however many workers this is tried,
it happens once. What still cannot be booked is left as it is. Every attempt is logged, with its correction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from psycopg import Connection, Rollback

from taximeter_db import ledger, quarantine
from taximeter_db.errors import NotFoundError
from taximeter_db.events import Outcome, Policy, Rejected, WorkspaceState
from taximeter_db.sealing import Sealer
from taximeter_worker.booker import misrouted, price
from taximeter_worker.decode import Decoded, Limits, decode_message
from taximeter_worker.pricing import PriceBook, load_book

CHUNK_ENTRIES = 500
_UNREAD = ("delivery_limit", "internal_error")
"""Reasons for which a message is kept whole before it is known what it holds."""
BY_PRICE = "price was set"
"""Who the log names where a worker booked what had waited for a price."""
LOCK = 7_480_312_911
"""Advisory lock: one worker at a time goes through the entries that wait for a price."""


class Replayed(msgspec.Struct):
    """What became of one entry.

    Attributes:
        entry_id: its number.
        result: ``booked``, ``duplicate`` (it had been booked before) or ``kept``.
        reason: why it was kept: the code of the fault that is still there.
        detail: the same as a sentence.
        states: the workspaces it changed; their flags must be written by the caller.
    """

    entry_id: int
    result: str
    reason: str | None = None
    detail: str | None = None
    states: list[WorkspaceState] = msgspec.field(default_factory=list)


def replay(
    conn: Connection[Any],
    ids: Sequence[int],
    correction: bytes | None = None,
    *,
    by: str = "replay",
    note: str | None = None,
    book: PriceBook | None = None,
    limits: Limits | None = None,
    policy: Policy = Policy(),  # noqa: B008 -- frozen
    skip_resolved: bool = False,
    sealer: Sealer | None = None,
) -> list[Replayed]:
    """Try to book quarantined entries, each in a transaction of its own, and log each attempt.

    Args:
        conn: from ``booking_connection``.
        ids: numbers of the entries.
        correction: a corrected event, or an array of them, to book in the place of the one entry's. All of it is booked or
            nothing. The entry keeps what was received; the log keeps the correction.
        by: who does it, kept with the entry.
        note: why, kept in the log.
        book: prices to use instead of the current ones.
        limits: the decoder's limits.
        policy: what happens to unknown workspaces.
        skip_resolved: pass over entries that somebody else resolved since they were listed.
        sealer: compresses and encrypts what the events said.

    Raises:
        NotFoundError: there is no such entry, or it was resolved before.
        ValueError: a correction for more than one entry.
    """
    if correction is not None and len(ids) != 1:
        raise ValueError("A correction is for one entry: name exactly one.")
    book = book or load_book(conn)
    results = []
    for entry_id in ids:
        entry = quarantine.get(conn, entry_id)
        if entry.resolved_at is not None:
            if skip_resolved:
                continue
            raise NotFoundError(f"Quarantine entry {entry_id} was resolved before ({entry.resolution}).")
        if correction is None:
            batch = _without_strange_payments(entry, _decode(entry.event, entry.content_type, book, limits))
        else:
            batch = _decode(correction, None, book, limits)
        if sealer is not None:
            sealer.seal(conn, batch.usages)  # here, since a first key is better made before the transaction
        try:
            results.append(_replay_one(conn, entry, batch, by, policy, sealer, correction, note))
        except NotFoundError:
            if not skip_resolved:
                raise
    return results


def replay_price_missing(
    conn: Connection[Any],
    publish: Callable[[list[WorkspaceState]], None],
    *,
    book: PriceBook,
    limits: Limits | None = None,
    policy: Policy = Policy(),  # noqa: B008 -- frozen
    sealer: Sealer | None = None,
) -> int:
    """Book every entry that waited for a price and now has one; returns how many there were.

    Nothing is done while another worker is at it. ``publish`` is given the states whose flags must be written.
    """
    row = conn.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone()
    if not row or not row[0]:
        return 0
    booked, after = 0, 0
    try:
        while entries := quarantine.find(conn, reason="price_missing", after=after, limit=CHUNK_ENTRIES):
            after = entries[-1].id
            ready: dict[int, Decoded] = {}
            for entry in entries:
                batch = _decode(entry.event, entry.content_type, book, limits)
                if not batch.rejected:
                    if sealer is not None:
                        sealer.seal(conn, batch.usages)
                    ready[entry.id] = batch
            if ready:
                with conn.transaction():
                    outcome, resolved = _book(conn, ready, BY_PRICE, policy, sealer)
                    _log_by_price(conn, [entry for entry in entries if entry.id in resolved], outcome)
                booked += len(resolved)
                publish(list(outcome.states.values()))
    finally:
        if not conn.broken:
            conn.execute("SELECT pg_advisory_unlock(%s)", [LOCK])
    return booked


def _log_by_price(conn: Connection[Any], entries: Sequence[quarantine.Entry], outcome: Outcome) -> None:
    refused = {one.event: one for one in outcome.refused}
    for entry in entries:
        fault = refused.get(entry.event)
        if fault is None:
            quarantine.log_replay(conn, entry.id, "booked", by=BY_PRICE)
        else:
            detail = f"Now that there is a price, another entry keeps it: {fault.detail}"
            quarantine.log_replay(conn, entry.id, "kept", by=BY_PRICE, reason=fault.reason, detail=detail)


def _decode(event: bytes, content_type: str | None, book: PriceBook, limits: Limits | None) -> Decoded:
    decoded = decode_message(event, content_type, now=time.time_ns() // 1000, limits=limits or Limits())
    rejected = list(decoded.rejected)
    return Decoded(price(book, decoded.usages, rejected), list(decoded.payments), rejected)


def _without_strange_payments(entry: quarantine.Entry, batch: Decoded) -> Decoded:
    """A whole message that nobody could look into may hold what its sender had no right to, and the operator did not see it."""
    if entry.reason not in _UNREAD or entry.kind == "payment":
        return batch
    return Decoded(batch.usages, [], [*batch.rejected, *map(misrouted, batch.payments)])


def _replay_one(
    conn: Connection[Any],
    entry: quarantine.Entry,
    batch: Decoded,
    by: str,
    policy: Policy,
    sealer: Sealer | None,
    correction: bytes | None,
    note: str | None,
) -> Replayed:
    fault: Rejected | None = _what_forbids(batch, whole=correction is not None)
    done: Replayed | None = None
    if fault is None:
        with conn.transaction():
            outcome, resolved = _book(conn, {entry.id: batch}, by, policy, sealer)
            if not resolved:
                raise NotFoundError(f"Quarantine entry {entry.id} was resolved by someone else a moment ago.")
            booked = outcome.usages_booked + outcome.payments_booked
            if outcome.refused and (correction is not None or not booked):
                fault = outcome.refused[0]
                # The entry stays open as it is, instead of being parked anew under another number.
                raise Rollback
            done = Replayed(entry.id, "booked" if booked else "duplicate", states=list(outcome.states.values()))
            quarantine.log_replay(conn, entry.id, done.result, by=by, correction=correction, note=note)
    if done is not None:
        return done
    assert fault is not None  # noqa: S101 -- for the type checker: nothing else rolls back
    quarantine.log_replay(
        conn, entry.id, "kept", by=by, reason=fault.reason, detail=fault.detail, correction=correction, note=note
    )
    return Replayed(entry.id, "kept", fault.reason, fault.detail)


def _what_forbids(batch: Decoded, *, whole: bool) -> Rejected | None:
    """Why a decoded entry is not even offered to the ledger; ``whole``: one bad event in it is enough."""
    if batch.rejected and (whole or not (batch.usages or batch.payments)):
        return batch.rejected[0]
    if not (batch.usages or batch.payments or batch.rejected):
        return Rejected(
            "not_an_object", "There is no event in this. Dismiss the entry if nothing is to be booked.", b""
        )
    return None


def _book(
    conn: Connection[Any], batches: dict[int, Decoded], by: str, policy: Policy, sealer: Sealer | None
) -> tuple[Outcome, list[int]]:
    """Resolve entries and book their events in one transaction; those that someone else resolved first are left out.

    Resolved comes first: if the ledger refuses an event for a new reason, it is parked anew under that reason, and the
    open entry with the same bytes must be out of the way.
    """
    with conn.transaction():
        mine = sorted(quarantine.resolve(conn, list(batches), quarantine.REPLAYED, by=by))
        usages, payments, rejected = [], [], []
        for entry_id in mine:
            usages += batches[entry_id].usages
            payments += batches[entry_id].payments
            rejected += batches[entry_id].rejected
        outcome = ledger.book(conn, usages, payments, rejected, policy=policy, sealer=sealer)
    return outcome, mine
