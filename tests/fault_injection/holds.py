"""Tools that hold before each call, and the judge of what came of it: the bound on the overdraft, at every usage of the log.

    balance >= minimum - sum of max(0, cost - held) - usage without a hold

What docs/holds.md does not promise counts as usage without a hold: a hold that could not be renewed for its whole life, one
that Redis lost while its usage waited for longer than that, and one of a tool that died before it could tell Redis of the usage.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from fault_injection.spender import WORKSPACES, Intent
from waiting import eventually

if TYPE_CHECKING:
    from fault_injection.system_under_test import SystemUnderTest

HOLD_SECONDS_MAX = 20
"""What the workers of the stage allow: for this long after Redis has lost holds, none is granted."""
WRITING_SECONDS = 8.0
"""From the booking of a usage to its balance in Redis, at most: pauses of the writer and faults between included."""
MINIMUM = -120_000
"""Microdollars."""
_TESTS = Path(__file__).parents[1]


class Spenders:
    """One process, which a fault may kill and start again."""

    def __init__(self, system: SystemUnderTest) -> None:
        self._system = system
        self._journal = system.folder / "spender.journal"
        self._process: subprocess.Popen[bytes] | None = None
        system.at_the_end(self.kill)

    def start(self) -> None:
        """Start it; what it recorded before stays in its journal."""
        command = [sys.executable, "-m", "fault_injection.spender", str(self._system.seed), str(self._journal)]
        with (self._system.folder / "spender.log").open("ab") as log:
            self._process = subprocess.Popen(command, env=self._system.tool_settings(), stdout=log, stderr=log)

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        """The running process's."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """Let it publish all that it has, and end."""
        process = self._process
        assert process is not None
        said = self._journal.with_suffix(".listening")
        eventually(lambda: said.exists() and said.read_text() == str(process.pid), 60, "the spender listens")
        process.terminate()
        assert process.wait(300) == 0, (self._system.folder / "spender.log").read_text()

    def journal(self) -> tuple[dict[str, Intent], dict[str, bool]]:
        """What it was about to send, by id; and of what was accepted, whether Redis had heard of it by then."""
        intents, done = {}, {}
        for line in self._journal.read_text().splitlines():
            entry = json.loads(line)
            if "done" in entry:
                done[entry["done"]] = entry.get("told", True)
            else:
                intents[entry["id"]] = Intent(**entry)
        return intents, done


@dataclass
class Held:
    """What became of the calls that were held."""

    usages: int = 0
    without_hold: int = 0
    unpromised: int = 0
    """Held, and counted as if they were not."""
    overdraft: int = 0
    """The deepest, in microdollars below the minimum."""
    allowed: int = 0
    """What the bound allowed then."""
    wrong: list[str] = field(default_factory=list)

    def line(self) -> str:
        """For a person."""
        return (
            f"Holds: {self.usages:,} usages of {len(WORKSPACES)} workspaces, {self.without_hold:,} of them without a hold and"
            f" {self.unpromised:,} whose hold was lost beyond what is promised; deepest overdraft {self.overdraft:,} of"
            f" {self.allowed:,} allowed microdollars."
        )


def all_booked(system: SystemUnderTest, conn: psycopg.Connection) -> bool:
    """Whether everything that the spenders got rid of is in a log."""
    _, done = system.spenders.journal()
    return not done.keys() - _logged(conn)


def judge(system: SystemUnderTest, conn: psycopg.Connection) -> Held:
    """Hold every usage of the log to the bound."""
    intents, done = system.spenders.journal()
    held = Held()
    logged = _logged(conn)
    held.wrong += [f"{missing}: accepted and lost" for missing in sorted(done.keys() - logged)]
    held.wrong += [f"{stranger}: booked and never sent" for stranger in sorted(logged - intents.keys())]
    query = """SELECT event_id, (balance_after * 1000000)::bigint, extract(epoch FROM recorded_at)::float8
               FROM taximeter.usage_log WHERE workspace_id = %s ORDER BY seq"""
    for workspace in WORKSPACES:
        allowed = 0
        for event_id, balance, booked_at in conn.execute(query, [workspace]).fetchall():
            intent = intents[event_id]
            held.usages += 1
            covered = intent.held
            if not intent.held_for:
                held.without_hold += 1
            elif _is_unpromised(intent, booked_at, system.losses, told=done.get(event_id, False)):
                held.unpromised, covered = held.unpromised + 1, 0
            allowed += max(0, intent.cost - covered)
            overdraft = MINIMUM - balance
            if overdraft > held.overdraft:
                held.overdraft, held.allowed = overdraft, allowed
            if overdraft > allowed:
                held.wrong.append(f"{event_id} of {workspace}: overdrawn by {overdraft}, and {allowed} are allowed")
    return held


def _is_unpromised(intent: Intent, booked_at: float, losses: list[float], *, told: bool) -> bool:
    if intent.held_for > HOLD_SECONDS_MAX - 1:
        return True
    late = booked_at + WRITING_SECONDS
    waited = late - intent.at + intent.held_for > HOLD_SECONDS_MAX
    return waited and (not told or any(intent.at - 1 <= loss <= late for loss in losses))


def _logged(conn: psycopg.Connection) -> set[str]:
    query = """SELECT event_id FROM taximeter.usage_log WHERE workspace_id = ANY(%(held)s)
               UNION ALL SELECT payment_id FROM taximeter.payment_log WHERE workspace_id = ANY(%(held)s)"""
    return {row[0] for row in conn.execute(query, {"held": list(WORKSPACES)})}


def environment_of_tools(base: dict[str, str]) -> dict[str, str]:
    """With the tests' modules on the path."""
    return {**base, "PYTHONPATH": os.pathsep.join(filter(None, [str(_TESTS), base.get("PYTHONPATH")]))}
