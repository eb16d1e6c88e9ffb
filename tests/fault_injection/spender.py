"""An AI tool whose calls are all held before they are made, as a process of its own, until SIGTERM or SIGKILL.

It spends what its workspaces have to the last microdollar and tops them up when they are short. Calls cost less than is held,
or more, or are given up; a few are made without a hold. What it is about to record stands in its journal before it is
recorded, and once more after: what was killed in between may be booked or not.

python -m fault_injection.spender SEED JOURNAL
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from taximeter import Hold, HoldsUnavailableError, InsufficientCredit, Meter, SpoolError, names
from taximeter.holds.amounts import to_usd

WORKSPACES = ("held-0", "held-1", "held-2")
THREADS = 4
CALL_MICRODOLLARS_MAX = 60_000
EXTEND, GIVE_UP, CALL_WITHOUT_HOLD = 0.15, 0.15, 0.03
"""How often."""


@dataclass(frozen=True)
class Intent:
    """A usage that is about to be recorded, or a payment about to be published."""

    id: str
    workspace: str
    at: float
    """By the clock of the machine, in seconds since 1970."""
    cost: int = 0
    """Microdollars."""
    held: int = 0
    """Microdollars; 0 without a hold."""
    held_for: float = 0.0
    """Seconds for which it was held when it was recorded."""
    paid_cents: int = 0


class Journal:
    """Lines that are whole or not there."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, line: dict[str, Any]) -> None:
        os.write(self._descriptor, json.dumps(line).encode() + b"\n")


class Spender:
    """One thread's calls."""

    def __init__(self, meter: Meter, journal: Journal, dice: random.Random, name: str) -> None:
        self._meter = meter
        self._journal = journal
        self._dice = dice
        self._name = name
        self._count = 0

    def call(self) -> None:
        """One call, from its hold to its record."""
        dice = self._dice
        workspace = dice.choice(WORKSPACES)
        if dice.random() < CALL_WITHOUT_HOLD:
            self._record(workspace, dice.randrange(1, CALL_MICRODOLLARS_MAX), None)
            return
        asked = to_usd(dice.randrange(1, CALL_MICRODOLLARS_MAX))
        try:
            hold = self._meter.hold(
                workspace, max_cost=asked, ttl=3600, on_short="cap" if dice.random() < 0.3 else "reject"
            )
        except InsufficientCredit:
            self._pay(workspace)
            return
        except HoldsUnavailableError:
            time.sleep(dice.uniform(0.2, 0.4))
            return
        with hold:
            self._use(workspace, hold)

    def _use(self, workspace: str, hold: Hold) -> None:
        dice, began = self._dice, time.monotonic()
        time.sleep(dice.uniform(0, 0.05) if dice.random() < 0.98 else dice.uniform(0, 3))
        if dice.random() < EXTEND:
            with contextlib.suppress(InsufficientCredit, HoldsUnavailableError):
                hold.extend(to_usd(dice.randrange(1, CALL_MICRODOLLARS_MAX)))
                began = time.monotonic()
        if dice.random() < GIVE_UP:
            return
        held = hold.microdollars
        cost = dice.randrange(0, held + 1) if dice.random() < 0.8 else held + dice.randrange(0, 2_000)
        self._record(workspace, cost, hold, held=held, held_for=time.monotonic() - began)

    def _record(self, workspace: str, cost: int, hold: Hold | None, **held: Any) -> None:
        intent = Intent(self._next(), workspace, time.time(), cost, **held)
        self._journal.write(asdict(intent))
        self._meter.record(
            workspace,
            tool="soak",
            provider="p",
            model="m",
            quantities={"input_tokens": cost},
            id=intent.id,
            hold=hold,
        )
        keeper = self._meter._keeper
        self._journal.write({"done": intent.id, "told": hold is None or keeper is None or hold not in keeper._due})

    def _pay(self, workspace: str) -> None:
        cents = self._dice.randrange(1, 8)
        intent = Intent(self._next(), workspace, time.time(), paid_cents=cents)
        event = {"specversion": "1.0", "id": intent.id, "source": "/soak", "type": names.PAYMENT_TYPE}
        data = {"amount": f"0.{cents:02d}", "kind": "top_up"}
        self._journal.write(asdict(intent))
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(intent.at))
        self._meter.publish_event({**event, "subject": workspace, "time": at, "data": data})
        self._journal.write({"done": intent.id})
        time.sleep(self._dice.uniform(0.2, 0.4))  # until it may be booked

    def _next(self) -> str:
        self._count += 1
        return f"{self._name}-{self._count}"


def main() -> None:
    seed, path = sys.argv[1], Path(sys.argv[2])
    stopping, parent = threading.Event(), os.getppid()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    path.with_suffix(".listening").write_text(str(os.getpid()))
    journal = Journal(path)
    meter = Meter.from_env(source="/soak", timeout_seconds=1)

    def spend(number: int) -> None:
        name = f"held-{os.getpid()}-{time.monotonic_ns()}-{number}"
        spender = Spender(meter, journal, random.Random(f"{seed}/{name}"), name)
        while not stopping.is_set() and os.getppid() == parent:
            with contextlib.suppress(SpoolError):  # the disk is full: it was not accepted
                spender.call()

    threads = [threading.Thread(target=spend, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    meter.flush(240)
    meter.close()


if __name__ == "__main__":
    main()
