"""Usages beside the producers': those that tell when the system books again, and those that are corrected in quarantine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg

from cloud_events import cloud_event
from taximeter import Meter, names
from taximeter_cli.errors import EmbeddedError
from waiting import eventually

if TYPE_CHECKING:
    from fault_injection.system_under_test import SystemUnderTest

RECOVERY_SECONDS_MAX = 600.0
CORRECTED_TOKENS = 200_000
"""At the tests' price more than a new workspace may owe: its flag flips when it is booked."""


class Probe:
    """Tells when the system books again: an event recorded just before a fault, one just after, and both in the ledger."""

    def __init__(self, system: SystemUnderTest, lane: str) -> None:
        self.workspace = lane
        self.sent = 0
        self._stage = system
        self._meter = Meter(
            broker_url=system.proxies["producers to broker"].url(system.broker_url),
            spool=system.folder / lane,
        )
        system.at_the_end(lambda: self._meter.close(0))

    def send(self) -> None:
        """Record one event."""
        self._meter.record(
            self.workspace,
            tool="probe",
            provider="p",
            model="m",
            quantities={"input_tokens": 1},
            id=f"{self.workspace}-{self.sent}",
        )
        self.sent += 1

    def wait(self) -> float:
        """Seconds until all that was sent is booked.

        Raises:
            AssertionError: It is not booked in time: an event is lost, or something does not recover.
        """
        began = time.monotonic()
        eventually(lambda: self._booked() >= self.sent, RECOVERY_SECONDS_MAX, f"{self.workspace} is booked")
        return time.monotonic() - began

    def _booked(self) -> int:
        query = "SELECT usage_count FROM taximeter.workspaces WHERE workspace_id = %s"
        try:
            with psycopg.connect(self._stage.postgres.url(), connect_timeout=2) as conn:
                row = conn.execute(query, [self.workspace]).fetchone()
        except (psycopg.Error, EmbeddedError):
            return -1
        return int(row[0]) if row else 0

    def close(self) -> None:
        self._meter.flush(120)
        self._meter.close()


class CorrectedUsages:
    """One usage each of workspaces of their own, with a negative quantity: only a corrected replay can book it."""

    def __init__(self, system: SystemUnderTest) -> None:
        self.workspaces: list[str] = []
        self._stage = system
        self._meter = Meter(
            broker_url=system.proxies["producers to broker"].url(system.broker_url),
            spool=system.folder / "corrected",
        )
        system.at_the_end(lambda: self._meter.close(0))

    def publish(self) -> str:
        """Publish the next; returns its workspace."""
        workspace = f"corrected-{len(self.workspaces)}"
        usage = {"tool": "probe", "provider": "p", "model": "m", "quantities": {"input_tokens": -1}}
        time_text = self._stage.began_at.isoformat().replace("+00:00", "Z")
        event = cloud_event(
            names.USAGE_TYPE, usage, workspace=workspace, event_id=f"{workspace}-0", source="/soak", time=time_text
        )
        self._meter.publish_event(event)
        self.workspaces.append(workspace)
        return workspace

    def close(self) -> None:
        """Publish what is left, and end."""
        self._meter.flush(120)
        self._meter.close()
