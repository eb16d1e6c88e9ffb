"""One merged batch, from bytes to flags: decode → price → book → flag.

Pure order of events; what can go wrong with the database is the caller's to retry (booking twice changes nothing), what
can go wrong with Redis ends as a flag debt (``flags.publisher``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from psycopg import Connection

from taximeter.errors import PriceMissingError
from taximeter.pricing.price_book import PriceBook
from taximeter_db import money
from taximeter_db.crypto.payload_crypto import PayloadCrypto
from taximeter_db.ledger import booking
from taximeter_db.ledger.claims import OptimisticClaims
from taximeter_db.ledger.context import BookingContext
from taximeter_db.ledger.events import Payment, Policy, PriceQuery, Rejected, Usage, WorkspaceState
from taximeter_worker import failpoints
from taximeter_worker.consume.brokers.source import Message
from taximeter_worker.consume.running import RunningBookings
from taximeter_worker.decode import transfer
from taximeter_worker.decode.message import decode_message
from taximeter_worker.decode.result import Decoded, Limits
from taximeter_worker.flags.marks import HoldTerms
from taximeter_worker.flags.publisher import FlagPublisher
from taximeter_worker.flags.writer import NO_HOLDS, FlagWriter, Holds
from taximeter_worker.metrics import Metrics
from taximeter_worker.server_clock import ServerClock
from taximeter_worker.settings import Settings

log = structlog.get_logger(__name__)


class Prices:
    """The price book in use, and the time by which it counts.

    One reference, swapped whole, so that a batch sees one revision.
    """

    def __init__(self) -> None:
        self.clock = ServerClock()
        self.book: PriceBook | None = None
        self.loaded = threading.Event()

    def use(self, book: PriceBook) -> None:
        """Price with this book from now on."""
        self.book = book
        self.loaded.set()


class Booker:
    """Books batches. Used by several threads at once, each with a connection of its own.

    Args:
        settings: the worker's settings.
        prices: the price book in use.
        writer: writes flags.
        metrics: of this process.
        is_canary: whether a message, by body and queue, is one of this worker's own.
        noticed: called after each commit that may have written notices.
    """

    def __init__(
        self,
        settings: Settings,
        prices: Prices,
        writer: FlagWriter,
        metrics: Metrics,
        *,
        is_canary: Callable[[bytes, str], bool] = lambda _body, _queue: False,
        noticed: Callable[[], None] = lambda: None,
    ) -> None:
        self._prices = prices
        self.running = RunningBookings()
        metrics.watch_bookings(self.running.seconds)
        self._publisher = FlagPublisher(writer, metrics)
        self._metrics = metrics
        self._is_canary = is_canary
        self._noticed = noticed
        self._events_max = settings.batch_events_max
        # One batch less than are in work: the database is never left waiting while flags are written or a batch is decoded,
        # and its locks are fought for by no more than before.
        self._bookings = threading.BoundedSemaphore(max(1, settings.batches_in_flight_max - 1))
        self._context = BookingContext(
            policy=policy_of(settings),
            claims=OptimisticClaims(),
            payload_crypto=PayloadCrypto(settings.masters),
            before_commit=_before_commit,
            owe_flags=False,  # the messages come again until the flags are written
        )
        self._limits = limits_of(settings)

    def decode(self, messages: Sequence[Message]) -> Decoded:
        """Decode and price messages. Never raises for what is in them."""
        now = self._prices.clock.now()
        batch = Decoded([], [], [])
        for message in messages:
            if self._is_canary(message.body, message.queue):
                continue
            if message.given_up:
                batch.rejected.append(_given_up(message))
                continue
            if message.distrusted:
                batch.rejected.append(_distrusted(message))
                continue
            decoded = decode_message(
                message.body, message.content_type, now=now, limits=self._limits, properties=message.properties
            )
            batch.usages += decoded.usages
            batch.rejected += decoded.rejected
            if message.may_pay:
                batch.payments += decoded.payments
            else:
                batch.rejected += [misrouted(payment, message.properties) for payment in decoded.payments]
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
                with self.running.one(conn.info.backend_pid) as running:
                    outcome = booking.book(conn, usages, batch.payments, batch.rejected, self._context)
                took = running.seconds
            failpoints.hit("after_commit")
            if outcome.may_notify:
                self._noticed()
            self.publish(conn, list(outcome.states.values()), outcome.holds)
            self._metrics.booked(outcome, usages, took, self._prices.clock.now())
            # Forgotten only now: whatever fails above is booked again, which finds duplicates and writes the flags.
            batch.usages, batch.payments, batch.rejected = batch.usages[self._events_max :], [], []

    def publish(self, conn: Connection[Any], states: Sequence[WorkspaceState], holds: Holds = NO_HOLDS) -> None:
        """Write the flags of these states and settle these holds, or note that they are owed."""
        self._publisher.publish(conn, states, owed=False, holds=holds)

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


def hold_terms_of(settings: Settings) -> HoldTerms:
    """The terms on which holds are granted."""
    return HoldTerms(settings.hold_seconds_max, money.to_pico(settings.minimum_balance))


def price(book: PriceBook, usages: Sequence[Usage], rejected: list[Rejected]) -> list[Usage]:
    """Set cost and price version; what has no price or an absurd one moves to ``rejected``."""
    failed = book.price_all(usages)
    if not failed:
        return list(usages)
    for usage, error in failed:
        one = Rejected.of(usage, error.reason, str(error))
        one.price_query = PriceQuery.of(usage) if isinstance(error, PriceMissingError) else None
        rejected.append(one)
    without = {id(usage) for usage, _ in failed}
    return [usage for usage in usages if id(usage) not in without]


def _distrusted(message: Message) -> Rejected:
    return message.rejected(
        "bad_signature",
        f"Nobody vouches for this message. {message.distrusted} Look at who can push to the broker; replay it only "
        "when you know where it comes from.",
    )


def misrouted(payment: Payment, properties: Mapping[str, Any] | None = None) -> Rejected:
    """Reject a payment that did not come by the way of payments. ``properties``: its message's."""
    rejected = Rejected.of(
        payment,
        "wrong_queue",
        f"A payment came by the way of usages, which whoever may send usage can take. {_sender(properties or {})} Send "
        "payments with the routing key, or to the list, that is for them; replay this one only when you know where it "
        "comes from.",
    )
    rejected.properties = transfer.as_text(transfer.carried(properties))
    return rejected


def _sender(properties: Mapping[str, Any]) -> str:
    user, key, app = (properties.get(name) for name in ("user_id", "producer_key", "app_id"))
    if user:  # the broker checks it
        return f"It was sent by the broker's user {user!a}."
    if key:
        return f"It was signed with the key {key}."
    return f"Its sender calls itself {app!a}." if app else "Nothing in it says who sent it."


def _given_up(message: Message) -> Rejected:
    return message.rejected(
        "delivery_limit",
        "The broker delivered this message again and again and no worker lived to acknowledge it. Look at what "
        "the workers' logs say about that time, then replay it.",
    )
