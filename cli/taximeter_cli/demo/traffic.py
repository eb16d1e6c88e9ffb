"""The traffic of ``taximeter up --demo``: a few workspaces, several tools and models, a steady trickle.

Everything goes through the SDK as a real tool's usage would. One workspace lives on small top-ups: it runs low, runs
out, waits disabled, and is topped up again. All names and texts are invented here.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import Connection

from taximeter import Meter
from taximeter_cli import payments, session
from taximeter_cli.demo import history
from taximeter_cli.demo.history import Habit
from taximeter_db.connect import booking_connection, connection
from taximeter_db.ledger import booking
from taximeter_db.ledger.context import BookingContext
from taximeter_db.ledger.events import Policy, WorkspaceState
from taximeter_db.money import PICO_PER_USD
from taximeter_db.prices.changes import set_price
from taximeter_db.prices.store import Price, PriceError, Target
from taximeter_worker.consume.batch import policy_of
from taximeter_worker.settings import Settings

EVENTS_PER_SECOND: Final = 2.0
FRUGAL: Final = "pocket-studio"
"""The workspace that runs out again and again."""
FRUGAL_TOP_UP: Final = "0.60"
FRUGAL_PAUSE_SECONDS: Final = 30.0
"""How long it stays disabled before somebody pays."""

WORKSPACES: Final = {
    "harbor-books": ("40.00", 5),
    "pine-street-clinic": ("75.00", 4),
    "lumen-labs": ("120.00", 6),
    FRUGAL: (FRUGAL_TOP_UP, 4),
}
"""Workspace → first top-up in USD, share of the traffic."""
HABITS: Final = {
    "harbor-books": Habit(60, "40.00", "20.00", 3 * PICO_PER_USD),
    "pine-street-clinic": Habit(35, "75.00", "25.00", 5 * PICO_PER_USD),
    "lumen-labs": Habit(80, "120.00", "50.00", 10 * PICO_PER_USD),
    FRUGAL: Habit(36, FRUGAL_TOP_UP, FRUGAL_TOP_UP),
}
"""How they lived before the demonstration began."""

_QUESTIONS: Final = (
    ("Which of our harbour novels sell best in winter?", "The three lighthouse novels, by a wide margin."),
    ("Draft a friendly reminder for tomorrow's check-up.", "Good morning! We look forward to seeing you at ten."),
    ("Why does the pump stop after nine minutes?", "Its thermal fuse opens at 74 °C; the filter is clogged."),
    ("Suggest a name for a blue ceramic lamp.", "How about “Tideglass”?"),
    ("Turn these notes into a packing list.", "Tent, stove, two maps, rain jackets, tea."),
)
_LETTERS: Final = (
    "The board met on Tuesday, agreed on the new roof and postponed the question of the bicycle shed.",
    "Over the quarter, returns fell by a fifth after the size chart was redrawn; postage rose a little.",
    "The trial ran for six weeks with forty gardens. Slugs preferred the east beds, as every year.",
)
_PICTURES: Final = ("a lighthouse in fog, woodcut", "a paper crane on a windowsill", "blue lamp, studio light")


class Usage(NamedTuple):
    """One believable use of a tool, in the arguments of ``Meter.record``."""

    tool: str
    provider: str | None
    model: str | None
    quantities: dict[str, int | Decimal]
    input: Any
    output: Any


def chat(chance: random.Random) -> Usage:
    """A conversation whose beginning is often cached."""
    question, answer = chance.choice(_QUESTIONS)
    fresh, cached = chance.randint(300, 4000), chance.choice([0, 0, 1024, 2048])
    model = chance.choice(["gpt-4o", "gpt-4o", "gpt-4o-mini"])
    quantities: dict[str, int | Decimal] = {"input_tokens": fresh, "output_tokens": chance.randint(40, 700)}
    if cached:
        quantities["cached_input_tokens"] = cached
    return Usage("chat", "openai", model, quantities, [{"role": "user", "content": question}], answer)


def summary(chance: random.Random) -> Usage:
    """A long text made short."""
    letter = chance.choice(_LETTERS)
    quantities: dict[str, int | Decimal] = {
        "input_tokens": chance.randint(3000, 18000),
        "output_tokens": chance.randint(150, 500),
    }
    return Usage("summaries", "anthropic", "claude-sonnet-4-5", quantities, letter * 3, letter.partition(",")[0] + ".")


def search(chance: random.Random) -> Usage:
    """A question answered from documents."""
    question, answer = chance.choice(_QUESTIONS)
    quantities: dict[str, int | Decimal] = {
        "input_tokens": chance.randint(800, 9000),
        "output_tokens": chance.randint(60, 300),
    }
    return Usage("document-search", "google", "gemini-2.5-flash", quantities, question, answer)


def picture(chance: random.Random) -> Usage:
    """A picture: the tool has a price of its own, whatever model it uses."""
    wish = chance.choice(_PICTURES)
    return Usage("image-generator", None, None, {"images": chance.randint(1, 2)}, {"prompt": wish}, {"format": "png"})


KINDS: Final[tuple[tuple[Callable[[random.Random], Usage], int], ...]] = (
    (chat, 10),
    (summary, 4),
    (search, 5),
    (picture, 1),
)
_WEIGHTED: Final = ([kind for kind, _ in KINDS], [weight for _, weight in KINDS])


def main() -> int:
    """Run until SIGTERM."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides
    settings = Settings.from_env()
    for workspace, (amount, _) in WORKSPACES.items():
        pay(settings, workspace, amount, f"demo-first-{workspace}", "the first top-up of the demonstration")
    with Meter.from_env(source="/demo", on_unknown="open") as meter:
        trickle(meter, settings, ended)
    return 0


def price_pictures(database_url: str) -> None:
    """Give the picture tool its price, once."""
    price = Price(
        target=Target("image-generator", None, None), unit="images", amount=Decimal("0.04"), source="demonstration"
    )
    with connection(database_url) as conn, contextlib.suppress(PriceError):
        set_price(conn, price)


def anything(chance: random.Random) -> Usage:
    """A use of some tool."""
    return chance.choices(*_WEIGHTED)[0](chance)


def past(conn: Connection[Any], policy: Policy, now: dt.datetime) -> list[WorkspaceState]:
    """Give the workspaces their weeks of history; an empty list if they have one."""
    return history.fill(conn, history.Plan(HABITS, anything, policy), now)


def remember(database_url: str) -> None:
    """Book the history of a new demonstration. The worker that starts afterwards writes the flags."""
    price_pictures(database_url)
    with contextlib.closing(booking_connection(database_url)) as conn, contextlib.suppress(psycopg.Error):
        past(conn, Policy(), dt.datetime.now(dt.UTC))  # without it, the demonstration begins today


def trickle(meter: Meter, settings: Settings, ended: threading.Event) -> None:
    """Record usage of enabled workspaces, at irregular moments; top the frugal one up some time after it ran out."""
    chance = random.Random(os.getpid())  # noqa: S311 - it chooses texts, nothing is protected by it
    names, shares = list(WORKSPACES), [share for _, share in WORKSPACES.values()]
    out_since: float | None = None
    while not ended.wait(chance.expovariate(EVENTS_PER_SECOND)):
        (workspace,) = chance.choices(names, shares)
        if meter.enabled(workspace):
            usage = anything(chance)
            meter.record(workspace, **usage._asdict(), metadata={"user": f"u-{chance.randint(1, 40)}"})
        elif workspace != FRUGAL:
            pay(settings, workspace, WORKSPACES[workspace][0], f"demo-{time.time_ns()}", "automatic top-up")
        elif out_since is None:
            out_since = time.monotonic()
            print(f"{workspace} has run out; somebody pays in {FRUGAL_PAUSE_SECONDS:.0f} s", flush=True)
        elif time.monotonic() - out_since > FRUGAL_PAUSE_SECONDS:
            out_since = None
            pay(settings, workspace, FRUGAL_TOP_UP, f"demo-{time.time_ns()}", "topped up after it ran out")


def pay(settings: Settings, workspace: str, amount: str, payment_id: str, note: str) -> None:
    """Credit a payment as `taximeter credit` does; the same id again changes nothing."""
    payment = payments.build(workspace, amount, payment_id, note=note)
    with session.booking(settings) as conn:
        outcome = booking.book(conn, (), [payment], context=BookingContext(policy=policy_of(settings)))
        session.write_flags(settings, conn, list(outcome.states.values()))


if __name__ == "__main__":
    sys.exit(main())
