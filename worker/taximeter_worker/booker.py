"""One merged batch, from bytes to flags: decode → price → book → flag.

Pure order of events; what can go wrong with the database is the caller's to retry (booking twice changes nothing), what
can go wrong with Redis ends here as a debt in the table ``stale_flags``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from psycopg import Connection

from taximeter_db import flags_state, ledger, money
from taximeter_db.claims import Hope
from taximeter_db.events import Payment, Policy, Rejected, Usage, WorkspaceState
from taximeter_db.sealing import Sealer
from taximeter_worker import failpoints, flags
from taximeter_worker.decode import Decoded, Limits, decode_message
from taximeter_worker.errors import FlagsUnavailable
from taximeter_worker.metrics import Metrics
from taximeter_worker.pricing import PriceBook
from taximeter_worker.settings import Settings
from taximeter_worker.sources import Message

log = structlog.get_logger(__name__)


class Prices:
    """The price book in use. One reference, swapped whole, so that a batch sees one revision."""

    def __init__(self) -> None:
        self.book: PriceBook | None = None
        self.loaded = threading.Event()

    def use(self, book: PriceBook) -> None:
        """Price with this book from now on."""
        self.book = book
        self.loaded.set()


class Booker:
    """Books batches. Used by several threads at once, each with a connection of its own."""

    def __init__(
        self,
        settings: Settings,
        prices: Prices,
        writer: flags.FlagWriter,
        metrics: Metrics,
        *,
        is_canary: Callable[[bytes], bool] = lambda _body: False,
    ) -> None:
        self._prices = prices
        self._writer = writer
        self._metrics = metrics
        self._is_canary = is_canary
        self._events_max = settings.batch_events_max
        # One batch less than are in work: the database is never left waiting while flags are written or a batch is decoded,
        # and its locks are fought for by no more than before.
        self._bookings = threading.BoundedSemaphore(max(1, settings.batches_in_flight_max - 1))
        self._hope = Hope()
        self._sealer = Sealer(settings.masters)
        self._limits = limits_of(settings)
        self._policy = policy_of(settings)

    def decode(self, messages: Sequence[Message]) -> Decoded:
        """Decode and price messages. Never raises for what is in them."""
        now = time.time_ns() // 1000
        batch = Decoded([], [], [])
        for message in messages:
            if self._is_canary(message.body):
                continue
            if message.given_up:
                batch.rejected.append(_given_up(message))
                continue
            if message.distrusted:
                batch.rejected.append(_distrusted(message))
                continue
            decoded = decode_message(message.body, message.content_type, now=now, limits=self._limits)
            batch.usages += decoded.usages
            batch.rejected += decoded.rejected
            if message.may_pay:
                batch.payments += decoded.payments
            else:
                batch.rejected += map(misrouted, decoded.payments)
        batch.usages = price(self._book(), batch.usages, batch.rejected)
        failpoints.hit("after_decode")
        return batch

    def book(self, conn: Connection[Any], batch: Decoded) -> None:
        """Book a decoded batch and write its flags.

        Raises:
            psycopg.Error: the database did not take it (all of it or a part); call again with the same batch.
        """
        while batch.usages or batch.payments or batch.rejected:
            usages = batch.usages[: self._events_max]
            with self._bookings:
                started = time.monotonic()
                outcome = ledger.book(
                    conn,
                    usages,
                    batch.payments,
                    batch.rejected,
                    policy=self._policy,
                    before_commit=_before_commit,
                    hope=self._hope,
                    sealer=self._sealer,
                )
                took = time.monotonic() - started
            failpoints.hit("after_commit")
            self._metrics.booked(outcome, usages, took)
            self.publish(conn, list(outcome.states.values()))
            # Forgotten only now: whatever fails above is booked again, which finds duplicates and writes the flags.
            batch.usages, batch.payments, batch.rejected = batch.usages[self._events_max :], [], []

    def publish(self, conn: Connection[Any], states: Sequence[WorkspaceState]) -> None:
        """Write the flags of these states, or note that they are owed."""
        if not states:
            return
        failpoints.hit("before_flag")
        try:
            written = self._writer.call(flags.write_states, states)
            if written.refused:
                written.flipped += self._write_again(conn, written.refused)
        except FlagsUnavailable as error:
            failpoints.hit("before_owing")
            flags_state.note_stale(conn, [state.workspace_id for state in states])
            failpoints.hit("after_owing")
            self._metrics.flag_failures.inc(len(states))
            log.warning("flags_owed", workspaces=len(states), why=str(error))
        else:
            self._metrics.flag_flips.inc(written.flipped)
        failpoints.hit("after_flag")

    def _write_again(self, conn: Connection[Any], workspace_ids: list[str]) -> int:
        """Settle states that Redis refused: it had newer ones. Returns the number of flags that changed.

        Usually another worker was faster. But a Redis position that was read *before* the database and is still ahead of
        it, or as far with another balance, can only come from a database that went back in time: then the whole cache
        must be made anew.
        """
        seen = self._writer.call(flags.read_positions, workspace_ids)
        fresh = ledger.read_states(conn, workspace_ids)
        behind = [s.workspace_id for s in fresh if seen[s.workspace_id].ahead_of(s)]
        if behind:
            log.critical(
                "database_behind_flags", workspaces=behind[:5], hint="it was restored; all flags are made anew"
            )
            flags_state.note_stale(conn, behind)
            self._writer.call(flags.forget_ready)
        current = [s for s in fresh if not seen[s.workspace_id].ahead_of(s)]
        flipped: int = self._writer.call(flags.write_states, current).flipped
        return flipped

    def _book(self) -> PriceBook:
        book = self._prices.book
        if book is None:  # the consumer starts only after the first load
            raise RuntimeError("no price book was loaded")
        return book


def _before_commit() -> None:
    failpoints.hit("before_commit")


def limits_of(settings: Settings) -> Limits:
    """The decoder's limits."""
    return Limits(
        event_bytes_max=settings.event_bytes_max,
        message_bytes_max=settings.message_bytes_max,
        future_seconds_max=settings.future_seconds_max,
    )


def policy_of(settings: Settings) -> Policy:
    """The ledger's policy for workspaces that were never seen."""
    return Policy(
        quarantine_unknown=settings.unknown_workspace == "quarantine",
        minimum=money.to_pico(settings.minimum_balance),
        low=money.to_pico(settings.low_balance),
    )


def price(book: PriceBook, usages: Sequence[Usage], rejected: list[Rejected]) -> list[Usage]:
    """Set cost and price version; what has no price or an absurd one moves to ``rejected``."""
    failed = book.price_all(usages)
    if not failed:
        return list(usages)
    rejected += [_refused(usage, error.reason, str(error)) for usage, error in failed]
    without = {id(usage) for usage, _ in failed}
    return [usage for usage in usages if id(usage) not in without]


def _refused(usage: Usage, reason: str, detail: str) -> Rejected:
    return Rejected(
        reason=reason,
        detail=detail,
        event=usage.raw,
        content_type="application/cloudevents+json",
        workspace_id=usage.workspace_id,
        event_id=usage.event_id,
        kind="usage",
    )


def _distrusted(message: Message) -> Rejected:
    return Rejected(
        reason="bad_signature",
        detail=f"Nobody vouches for this message. {message.distrusted} Look at who can push to the broker; replay it only "
        "when you know where it comes from.",
        event=message.body,
        content_type=message.content_type,
    )


def misrouted(payment: Payment) -> Rejected:
    """A payment that did not come by the way of payments, as it is kept."""
    return Rejected(
        reason="wrong_queue",
        detail="A payment came by the way of usages, which whoever may send usage can take. Send payments with the routing "
        "key, or to the list, that is for them; replay this one only when you know where it comes from.",
        event=payment.raw,
        content_type="application/cloudevents+json",
        workspace_id=payment.workspace_id,
        event_id=payment.payment_id,
        kind="payment",
    )


def _given_up(message: Message) -> Rejected:
    return Rejected(
        reason="delivery_limit",
        detail="The broker delivered this message again and again and no worker lived to acknowledge it. Look at what "
        "the workers' logs say about that time, then replay it.",
        event=message.body,
        content_type=message.content_type,
        kind="payment" if message.may_pay else "message",
    )
