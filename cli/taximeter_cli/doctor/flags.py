"""The flag Redis: its server, and whether its flags say what the database says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

from psycopg import Connection

from taximeter import names
from taximeter_cli.doctor.report import Check, verdict
from taximeter_db import flag_debts
from taximeter_db.ledger.events import WorkspaceState
from taximeter_worker.flags import marks
from taximeter_worker.flags.connecting import Client, server_state

SAMPLE: Final = 2_000
"""Workspaces whose flags are compared."""
SETTLE_SECONDS: Final = 1.0
"""A flag that a booking changes now may be late by so much."""


def persistence(name: str, client: Client) -> Iterator[Check]:
    """Whether what the server confirmed survives it, and whether it would rather refuse than forget."""
    if hasattr(client, "get_primaries"):
        return  # each node of a cluster would have to be asked
    wrong = [] if client.info("persistence").get("aof_enabled") else ["appendonly is off"]
    memory = client.info("memory")
    policy = memory.get("maxmemory_policy", "noeviction")
    if memory.get("maxmemory") and policy != "noeviction":
        wrong.append(f"maxmemory-policy is {policy}: keys are thrown away")
    yield verdict(
        f"{name} durability",
        ", ".join(wrong),
        "what it confirmed survives a restart",
        "Set appendonly yes, appendfsync always and maxmemory-policy noeviction (docs/deployment.md).",
    )


def warmth(conn: Connection[Any], client: Client) -> Iterator[Check]:
    """Whether Redis holds all flags."""
    mark = marks.read_ready(client)
    yield verdict(
        "flags complete",
        marks.why_cold(mark, server_state(client), flag_debts.epoch(conn)) or "",
        "a rebuild has written them all",
        "A worker rebuilds them within seconds; `taximeter flags rebuild` does it now.",
    )


def agreement(conn: Connection[Any], client: Client) -> Iterator[Check]:
    """Whether flags say what the database says."""
    suspects = _differing(client, flag_debts.states_after(conn, "", SAMPLE))
    if suspects:  # a booking may have come between
        time.sleep(SETTLE_SECONDS)
        states = {state.workspace_id: state for state in flag_debts.states_after(conn, "", SAMPLE)}
        suspects = _differing(client, [states[name] for name in suspects if name in states])
    some = ", ".join(suspects[:3])
    yield verdict(
        "flags agree",
        f"{len(suspects):,} of {SAMPLE:,} at most say something else than the database, such as {some}"
        if suspects
        else "",
        "with the database",
        "`taximeter flags rebuild` writes them all again.",
    )


def _differing(client: Client, states: list[WorkspaceState]) -> list[str]:
    differing = []
    for state in states:
        flag = client.hget(names.flag_key(state.workspace_id), "enabled")
        if flag != str(int(state.enabled)) and not (flag is None and state.enabled):
            differing.append(state.workspace_id)
    return differing
