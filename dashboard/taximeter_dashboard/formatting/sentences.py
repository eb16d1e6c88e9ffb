"""What the summary says: what state AI is in, until when, and what to do."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Any, Final

import msgspec
from psycopg import Connection

from taximeter_dashboard.formatting import amounts, times
from taximeter_db.money import PICO_PER_USD
from taximeter_db.queries import pace
from taximeter_db.queries.summary import Summary
from taximeter_db.status_changes import StatusRow

PACE_DAYS: Final = 7
TOP_UP: Final = 25 * PICO_PER_USD
_USAGES_MIN: Final = 10
_HISTORY_SECONDS_MIN: Final = 3600
_FAR_SECONDS: Final = 2 * 365 * 86400
_THIN: Final = "Not enough history for a forecast."
WORDS: Final = {"sufficient": "Sufficient", "low": "Low", "insufficient": "Insufficient"}


class Pace(msgspec.Struct, frozen=True):
    """Picodollars spent within a number of seconds."""

    cost: int
    seconds: float
    words: str

    def lasts(self, amount: int) -> float:
        """Seconds that an amount lasts."""
        return amount * self.seconds / self.cost


def measure_pace(conn: Connection[Any], summary: Summary, now: dt.datetime) -> Pace | None:
    """The pace of the last days, of today where AI is about to stop; None where there is too little to go by."""
    days = PACE_DAYS if summary.status == "sufficient" else 1
    spent = pace.spent_since(conn, summary, now - dt.timedelta(days=days))
    if spent is None or spent.usages < _USAGES_MIN or spent.cost <= 0:
        return None
    seconds = (now - spent.since).total_seconds()
    if seconds < _HISTORY_SECONDS_MIN:
        return None
    # A workspace that began yesterday has the pace of a day, not of a week.
    return Pace(spent.cost, seconds, "the last 7 days" if days == PACE_DAYS else "today")


class Piece(msgspec.Struct, frozen=True):
    """A part of a sentence; with a `path` below the workspace's own it is a link."""

    text: str
    path: str = ""


def sentence(
    summary: Summary, measured: Pace | None, cause: StatusRow | None, now: dt.datetime, where: zoneinfo.ZoneInfo
) -> list[Piece]:
    """The one sentence (or two) under the balance."""
    if not summary.enabled:
        return _off(summary, cause, now, where)
    return [Piece(_on(summary, measured, now, where))]


def _on(summary: Summary, measured: Pace | None, now: dt.datetime, where: zoneinfo.ZoneInfo) -> str:
    left = summary.balance - summary.minimum
    if not left:
        return "AI is on. Nothing is left: the next cost switches it off."
    if summary.status == "low":
        text = f"AI is on, with a warning. {amounts.exact(left)} left until it stops"
        if measured is None:
            return f"{text}. {_THIN}"
        return f"{text}, about {times.duration(measured.lasts(left))} at today's pace."
    if not summary.usage_count:
        return "AI is on. Usages appear here about a second after the first call."
    return f"AI is on. {_forecast(measured, left, now, where) if measured else _THIN}"


def _forecast(measured: Pace, left: int, now: dt.datetime, where: zoneinfo.ZoneInfo) -> str:
    seconds, longer = measured.lasts(left), measured.lasts(left + TOP_UP)
    if seconds > _FAR_SECONDS:
        return f"At the pace of {measured.words} this lasts for more than two years."
    text = f"At the pace of {measured.words} this lasts until about {_until(seconds, now, where)}"
    text += f" ({times.duration(seconds)})."
    if longer <= _FAR_SECONDS:
        text += f" Adding $25 would last until about {_until(longer, now, where)}."
    return text


def _until(seconds: float, now: dt.datetime, where: zoneinfo.ZoneInfo) -> str:
    then = now + dt.timedelta(seconds=seconds)
    at = times.local(then, where)
    if seconds < 86400:
        return f"{at:%H:%M}"
    year = f" {at.year}" if at.year != now.astimezone(where).year else ""
    return f"{times.day(then, where)}{year}"


def _off(summary: Summary, cause: StatusRow | None, now: dt.datetime, where: zoneinfo.ZoneInfo) -> list[Piece]:
    on, calm = (amounts.cents_up(limit - summary.balance) for limit in (summary.minimum, summary.low))
    todo = f"{amounts.exact(on)} or more switches it on"
    todo += f"; {amounts.exact(calm)} ends the warning." if calm > on else "."
    if cause is None:
        return [Piece(f"AI is off. {todo}")]
    since = f"AI is off since {times.clock(cause.changed_at, where, now)}. "
    return [Piece(since), culprit(cause), Piece(f" switched it off. {todo}")]


def culprit(cause: StatusRow) -> Piece:
    """What changed the status, by name and amount, with the way to it."""
    name = cause.cause_id or "?"
    short = name if len(name) <= 12 else f"{name[:4]}…{name[-4:]}"
    if cause.cause == "settings":
        return Piece(f"A change of the limits by {name[:40]}")
    amount = cause.amount or 0
    if cause.cause == "payment":
        what = "Adjustment" if amount < 0 else "Payment"
        return Piece(f"{what} {short} ({amounts.signed(amount)})", f"payments/{cause.cause_seq}")
    return Piece(
        f"Usage {short} ({_apart((cause.tool or '')[:40])}, {amounts.exact(-amount)})", f"usages/{cause.cause_seq}"
    )


def _apart(name: str) -> str:
    """A name in letters that run from right to left must not turn the amount behind it around."""
    return name if name.isascii() else f"\N{FIRST STRONG ISOLATE}{name}\N{POP DIRECTIONAL ISOLATE}"
