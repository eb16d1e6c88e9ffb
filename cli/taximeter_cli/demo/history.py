"""Weeks of believable history for the demonstration, so that the page has something to show at once.

Booked by the ledger itself, in one transaction in which the clock is set back: see docs/decisions/0110.
"""

from __future__ import annotations

import datetime as dt
import random
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from psycopg import Connection
from sqlalchemy import bindparam, update

from taximeter import names
from taximeter.pricing.price_book import PriceBook
from taximeter_cli import payments
from taximeter_db.core import Statement
from taximeter_db.ledger import booking, rollups
from taximeter_db.ledger.context import BookingContext
from taximeter_db.ledger.events import Outcome, Policy, Usage, WorkspaceState
from taximeter_db.models.flags import LedgerState
from taximeter_db.sql import statements
from taximeter_worker.decode.message import decode_message
from taximeter_worker.pricing.loading import load_book

DAYS: Final = 42
_SINGLY: Final = dt.timedelta(days=1)
"""How much of the newest past is booked a few minutes at a time; what lies before, two hours at a time."""
_PAUSE: Final = dt.timedelta(hours=5)
_BUSY_HOURS: Final = (1, 1, 1, 1, 1, 2, 4, 8, 14, 18, 18, 14, 12, 16, 18, 17, 14, 9, 6, 4, 3, 2, 2, 1)
_CLOCK: Final = statements("demo_clock")
_SETTINGS: Final = statements("session")["transaction_settings"]
_STATUS_CHANGES_SINCE: Final = Statement(update(LedgerState).values(status_changes_since=bindparam("since")))


class Habit(NamedTuple):
    """How a workspace lives: usages a day, the first top-up, a later one, and the balance at which it is made.

    Without a `refill_at` it is topped up some hours after it has run out.
    """

    usages_a_day: int
    first: str
    refill: str
    refill_at: int | None = None


class Extra(NamedTuple):
    """A payment beside the top-ups: after which part of the time, to which workspace of the list, what and why."""

    after: float
    place: int
    amount: str
    kind: str
    note: str


Make = Callable[[random.Random], Any]
_EXTRAS: Final = (
    Extra(0.2, 0, "5.00", "promo", "five dollars to try it out"),
    Extra(0.5, 1, "2.50", "refund", "a letter that was summarised twice"),
    Extra(0.8, 0, "-1.25", "adjustment", "the promo was counted twice"),
)


class Plan(NamedTuple):
    """What past to invent.

    Attributes:
        habits: By workspace.
        make: Makes a usage: an object with the fields of ``Meter.record``'s arguments and ``_asdict``.
        policy: The limits of new workspaces.
        days: How long the past is.
        seed: The same one makes the same past.
    """

    habits: Mapping[str, Habit]
    make: Make
    policy: Policy
    days: int = DAYS
    seed: int = 7


def fill(conn: Connection[Any], plan: Plan, now: dt.datetime) -> list[WorkspaceState]:
    """Book a past for workspaces that were never seen; returns their states, none if one of them was.

    Args:
        conn: From `booking_connection`, as the owner of the tables.
        plan: What to invent.
        now: Where the past ends.

    Raises:
        psycopg.Error: The database did not let it; nothing was changed.
    """
    if booking.read_states(conn, plan.habits):
        return []
    past = Past(conn, load_book(conn), plan)
    whole = dt.timedelta(days=plan.days)
    start = (now - whole).replace(minute=0, second=0, microsecond=0)
    with conn.transaction():
        _set(conn, "taximeter_demo.since", start)
        conn.execute(_CLOCK["partition_before"], prepare=False)
        conn.execute(_CLOCK["set"], prepare=False)
        _STATUS_CHANGES_SINCE.run(conn, since=start)
        for workspace, habit in plan.habits.items():
            past.pay(
                start,
                workspace,
                habit.first,
                "the first top-up of the demonstration",
                payment_id=f"demo-first-{workspace}",
            )
        extras = list(_EXTRAS)
        for begin, width in _steps(start, now):
            while extras and begin >= start + whole * extras[0].after:
                extra = extras.pop(0)
                past.pay(begin, list(plan.habits)[extra.place], extra.amount, extra.note, kind=extra.kind)
            past.live(begin, width)
        conn.execute(_CLOCK["reset"], prepare=False)
    for workspace in plan.habits:
        while True:
            reached, count = rollups.advance(conn, workspace)
            if reached >= count:
                break
    return list(past.states.values())


def _set(conn: Connection[Any], setting: str, moment: dt.datetime) -> None:
    """A setting of the transaction."""
    conn.execute(_SETTINGS, {"names": [setting], "values": [moment.isoformat()]})


def _steps(start: dt.datetime, now: dt.datetime) -> Iterator[tuple[dt.datetime, dt.timedelta]]:
    hours, minutes = dt.timedelta(hours=2), dt.timedelta(minutes=4)
    while start < now - minutes:
        width = minutes if start > now - _SINGLY else hours
        yield start, width
        start += width


class Past:
    """Books step by step, and remembers who is off and since when."""

    def __init__(self, conn: Connection[Any], book: PriceBook, plan: Plan) -> None:
        self.states: dict[str, WorkspaceState] = {}
        self._conn, self._book, self._plan = conn, book, plan
        self._chance = random.Random(plan.seed)  # noqa: S311 - invents, protects nothing
        self._off_since: dict[str, dt.datetime] = {}
        self._owed: dict[str, float] = {}

    def pay(
        self,
        moment: dt.datetime,
        workspace: str,
        amount: str,
        note: str,
        *,
        payment_id: str | None = None,
        kind: str = "top_up",
    ) -> None:
        """Book a payment at a moment."""
        payment_id = payment_id or f"demo-{workspace}-{kind}-{moment:%Y%m%d%H%M}"
        # What the live demonstration would book again on its first start must be the same payment.
        bare = kind != "top_up" or payment_id.startswith("demo-first")
        transaction = None if bare else {"reference": f"pi_{self._chance.getrandbits(48):012x}"}
        payment = payments.build(workspace, amount, payment_id, kind, transaction, note=note)
        payment.occurred_at = _microseconds(moment)
        self._set(moment)
        self._note(booking.book(self._conn, (), [payment], context=BookingContext(policy=self._plan.policy)))

    def live(self, begin: dt.datetime, width: dt.timedelta) -> None:
        """What happens from a moment on, for as long as `width`."""
        habits = self._plan.habits
        for name, habit in habits.items():
            state = self.states[name]
            if habit.refill_at is not None and state.balance < habit.refill_at:
                self.pay(begin, name, habit.refill, "automatic top-up")
            if not self.states[name].enabled:
                off = self._off_since.setdefault(name, begin)
                if begin - off >= _PAUSE * self._chance.uniform(0.3, 1.7):
                    self.pay(begin, name, habit.refill, "topped up after it ran out")
                    del self._off_since[name]
        moment = begin + width * self._chance.random()
        who: list[str] = []
        for name, habit in habits.items():
            if self.states[name].enabled:
                who += [name] * self._count(name, habit, begin, width)
        if who:
            self.use(moment, who)

    def use(self, moment: dt.datetime, workspaces: Sequence[str]) -> None:
        """Book a usage at a moment for each workspace that is named, as often as it is."""
        usages = [self._usage(name, moment) for name in workspaces]
        for unpriced in self._book.price_all(usages):
            usages.remove(unpriced[0])
        self._set(moment)
        self._note(booking.book(self._conn, usages, context=BookingContext(policy=self._plan.policy)))

    def _count(self, name: str, habit: Habit, begin: dt.datetime, width: dt.timedelta) -> int:
        share = _BUSY_HOURS[begin.hour] / sum(_BUSY_HOURS) * (width / dt.timedelta(hours=1))
        # Quieter at the week's end; now and then somebody reads in a whole archive.
        share *= 0.3 if begin.weekday() >= 5 else 1.0
        share *= 4.0 if begin.date().toordinal() % 19 == len(name) % 19 else 1.0
        owed = self._owed.get(name, 0.0) + habit.usages_a_day * share * self._chance.uniform(0.4, 1.6)
        self._owed[name] = owed % 1
        return int(owed)

    def _usage(self, workspace: str, moment: dt.datetime) -> Usage:
        made = self._plan.make(self._chance)._asdict()
        event = {
            "specversion": "1.0",
            "id": _id(moment, self._chance),
            "source": "/demo",
            "type": names.USAGE_TYPE,
            "subject": workspace,
            "time": moment.isoformat(),
            "data": {
                **{key: value for key, value in made.items() if value is not None},
                "metadata": {"user": f"u-{self._chance.randint(1, 40)}"},
            },
        }
        decoded = decode_message(msgspec.json.encode(event), names.CONTENT_TYPE_EVENT, now=_microseconds(moment))
        return decoded.usages[0]

    def _set(self, moment: dt.datetime) -> None:
        _set(self._conn, "taximeter_demo.now", moment)

    def _note(self, outcome: Outcome) -> None:
        self.states.update(outcome.states)


def _microseconds(moment: dt.datetime) -> int:
    return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)


def _id(moment: dt.datetime, chance: random.Random) -> str:
    """A UUIDv7 of that moment, as the SDK would have made it."""
    milliseconds = _microseconds(moment) // 1000
    number = (milliseconds << 80) | (0x7 << 76) | (chance.getrandbits(12) << 64)
    return str(uuid.UUID(int=number | (0b10 << 62) | chance.getrandbits(62)))
