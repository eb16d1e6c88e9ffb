"""Booking what was quarantined, once it can be.

The entry is resolved and its event booked in one transaction, so however often and by however many workers this is tried,
it happens once. What still cannot be booked is left as it is. Every attempt is logged, with its correction.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from psycopg import Connection, Rollback

from taximeter.errors import OutOfRangeError, PriceMissingError
from taximeter.pricing.price_book import PriceBook
from taximeter_db import locks, quarantine, server_time
from taximeter_db.crypto.payload_crypto import PayloadCrypto
from taximeter_db.errors import NotFoundError
from taximeter_db.ledger import booking
from taximeter_db.ledger.context import BookingContext
from taximeter_db.ledger.events import Outcome, Policy, Rejected, WorkspaceState
from taximeter_db.locks import AdvisoryLock
from taximeter_db.quarantine import Attempt
from taximeter_worker.consume.batch import misrouted, price
from taximeter_worker.decode.message import decode_message
from taximeter_worker.decode.result import Decoded, Limits
from taximeter_worker.errors import CorrectionError, LockTakenError
from taximeter_worker.flags.writer import Holds
from taximeter_worker.pricing.loading import load_book

_UNREAD = ("delivery_limit", "internal_error")
"""Reasons for which a message is kept whole before it is known what it holds."""
BY_TIME = "its time came"
BY_PRICE = "price was set"
"""Who the log names where a worker booked what had waited for a price."""


class Replayed(msgspec.Struct):
    """What became of one entry.

    Attributes:
        entry_id: its number.
        result: ``booked``, ``duplicate`` (it had been booked before) or ``kept``.
        reason: why it was kept: the code of the fault that is still there.
        detail: the same as a sentence.
        states: the workspaces it changed; their flags must be written by the caller.
        holds: those that its usages name; they must be settled with the flags.
    """

    entry_id: int
    result: str
    reason: str | None = None
    detail: str | None = None
    states: list[WorkspaceState] = msgspec.field(default_factory=list)
    holds: dict[str, list[str]] = msgspec.field(default_factory=dict)


class ReplayContext(msgspec.Struct, frozen=True):
    """How the worker decodes and books.

    Attributes:
        limits: the decoder's limits.
        policy: what happens to unknown workspaces.
        payload_crypto: compresses and encrypts what the events said.
    """

    limits: Limits = Limits()
    policy: Policy = Policy()
    payload_crypto: PayloadCrypto | None = None


def replay(
    conn: Connection[Any],
    ids: Sequence[int],
    attempt: Attempt = Attempt("replay"),  # noqa: B008 -- frozen
    *,
    context: ReplayContext = ReplayContext(),  # noqa: B008 -- frozen
    skip_resolved: bool = False,
) -> list[Replayed]:
    """Try to book quarantined entries at the present prices, each in a transaction of its own, and log each attempt.

    Args:
        conn: from ``booking_connection``.
        ids: numbers of the entries.
        attempt: who does it and why. A correction, an event or an array of them, is booked in the place of the one
            entry's: all of it or nothing. The entry keeps what was received; the log keeps the correction.
        context: how the worker decodes and books.
        skip_resolved: pass over entries that somebody else resolved since they were listed.

    Raises:
        NotFoundError: there is no such entry, or it was resolved before.
        CorrectionError: a correction for more than one entry.
    """
    correction = attempt.correction
    if correction is not None and len(ids) != 1:
        raise CorrectionError("A correction is for one entry: name exactly one.")
    book, now = load_book(conn), server_time.now(conn)
    results = []
    for entry_id in ids:
        entry = quarantine.get(conn, entry_id)
        if entry.resolved_at is not None:
            if skip_resolved:
                continue
            raise NotFoundError(f"Quarantine entry {entry_id} was resolved before ({entry.resolution}).")
        if correction is None:
            batch = _without_strange_payments(entry, _decode_entry(entry, book, context.limits, now))
        else:
            batch = _priced(decode_message(correction, None, now=now, limits=context.limits), book)
        if context.payload_crypto is not None:
            # here, since a first key is better made before the transaction
            context.payload_crypto.encode(conn, batch.usages)
        try:
            results.append(_replay_one(conn, entry, batch, attempt, context))
        except NotFoundError:
            if not skip_resolved:
                raise
    return results


def replay_waiting(
    conn: Connection[Any],
    publish: Callable[[list[WorkspaceState], Holds], object],
    *,
    book: PriceBook,
    context: ReplayContext = ReplayContext(),  # noqa: B008 -- frozen
) -> int:
    """Book every entry that waited for a price and now has one, or for its time that has come; returns how many there were.

    ``publish`` is given the states whose flags must be written, and the holds to settle with them.

    Raises:
        LockTakenError: Another worker is at it; nothing was done.
    """
    with locks.try_hold(conn, AdvisoryLock.REPLAY) as alone:
        if not alone:
            raise LockTakenError("Another worker replays at the moment.")
        booked, now = 0, server_time.now(conn)
        for reason, by, wanted in (
            ("price_missing", BY_PRICE, functools.partial(_may_have_price, book)),
            ("future_event", BY_TIME, _any),
        ):
            for entries in quarantine.pages(conn, reason=reason, wanted=wanted):
                ready: dict[int, Decoded] = {}
                for entry in entries:
                    batch = _decode_entry(entry, book, context.limits, now)
                    # A payment may have come by the way of usages: that is for a person to look at.
                    if not batch.rejected and not batch.payments:
                        if context.payload_crypto is not None:
                            context.payload_crypto.encode(conn, batch.usages)
                        ready[entry.id] = batch
                if ready:
                    with conn.transaction():
                        outcome, resolved = _book(conn, ready, by, context)
                        _log_by_itself(conn, [entry for entry in entries if entry.id in resolved], outcome, by)
                    booked += len(resolved)
                    publish(list(outcome.states.values()), outcome.holds)
        return booked


def _any(_head: quarantine.Head) -> bool:
    return True


def _may_have_price(book: PriceBook, head: quarantine.Head) -> bool:
    """Whether the event is worth reading; one that was kept by an older version always is."""
    query = head.price_query
    if query is None:
        return True
    try:
        book.price(query.tool, query.provider, query.model, dict.fromkeys(query.units, 1), query.at, head.workspace_id)
    except PriceMissingError:
        return False
    except OutOfRangeError:
        return True
    return True


def _log_by_itself(conn: Connection[Any], entries: Sequence[quarantine.Entry], outcome: Outcome, by: str) -> None:
    refused = {one.event: one for one in outcome.refused}
    for entry in entries:
        fault = refused.get(entry.event)
        if fault is None:
            quarantine.log_replay(conn, entry.id, "booked", Attempt(by))
        else:
            detail = f"Nothing was in its way any more, and another entry keeps it: {fault.detail}"
            quarantine.log_replay(conn, entry.id, "kept", Attempt(by), reason=fault.reason, detail=detail)


def _decode_entry(entry: quarantine.Entry, book: PriceBook, limits: Limits, now: int) -> Decoded:
    decoded = decode_message(entry.event, entry.content_type, now=now, limits=limits, properties=entry.properties)
    return _priced(decoded, book)


def _priced(decoded: Decoded, book: PriceBook) -> Decoded:
    rejected = list(decoded.rejected)
    return Decoded(price(book, decoded.usages, rejected), list(decoded.payments), rejected)


def _without_strange_payments(entry: quarantine.Entry, batch: Decoded) -> Decoded:
    """A whole message that nobody could look into may hold what its sender had no right to, and the operator did not see it."""
    if entry.reason not in _UNREAD or entry.kind == "payment":
        return batch
    return Decoded(
        batch.usages, [], [*batch.rejected, *(misrouted(payment, entry.properties) for payment in batch.payments)]
    )


def _replay_one(
    conn: Connection[Any],
    entry: quarantine.Entry,
    batch: Decoded,
    attempt: Attempt,
    context: ReplayContext,
) -> Replayed:
    whole = attempt.correction is not None
    fault: Rejected | None = _what_forbids(batch, whole=whole)
    done: Replayed | None = None
    if fault is None:
        with conn.transaction():
            outcome, resolved = _book(conn, {entry.id: batch}, attempt.by, context)
            if not resolved:
                raise NotFoundError(f"Quarantine entry {entry.id} was resolved by someone else a moment ago.")
            booked = outcome.usages_booked + outcome.payments_booked
            if outcome.refused and (whole or not booked):
                fault = outcome.refused[0]
                # The entry stays open as it is, instead of being quarantined again under another number.
                raise Rollback
            states = list(outcome.states.values())
            done = Replayed(entry.id, "booked" if booked else "duplicate", states=states, holds=outcome.holds)
            quarantine.log_replay(conn, entry.id, done.result, attempt)
    if done is not None:
        return done
    assert fault is not None  # noqa: S101 -- for the type checker: nothing else rolls back
    quarantine.log_replay(conn, entry.id, "kept", attempt, reason=fault.reason, detail=fault.detail)
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
    conn: Connection[Any], batches: dict[int, Decoded], by: str, context: ReplayContext
) -> tuple[Outcome, list[int]]:
    """Resolve entries and book their events in one transaction; those that someone else resolved first are left out.

    Resolved comes first: if the ledger refuses an event for a new reason, it is quarantined again under that reason, and the
    open entry with the same bytes must be out of the way.
    """
    with conn.transaction():
        mine = sorted(quarantine.resolve(conn, list(batches), quarantine.REPLAYED, by=by))
        usages, payments, rejected = [], [], []
        for entry_id in mine:
            usages += batches[entry_id].usages
            payments += batches[entry_id].payments
            rejected += batches[entry_id].rejected
        outcome = booking.book(
            conn,
            usages,
            payments,
            rejected,
            BookingContext(policy=context.policy, payload_crypto=context.payload_crypto),
        )
    return outcome, mine
