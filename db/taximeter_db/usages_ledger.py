"""Booking usages: one transaction for a batch.

Every step that takes locks takes them in sorted order (keys, then workspaces, then quarantine), so that two workers
with overlapping batches can wait for each other but never in a circle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from psycopg import Connection

from taximeter_db import rows, status_changes
from taximeter_db.claims import Claimed, Hope, claim
from taximeter_db.events import Outcome, Rejected, Usage, WorkspaceState
from taximeter_db.ledger_common import MissingWorkspacesError, park, state_from_row
from taximeter_db.sql import statement

_DEBIT = statement("debit_workspaces")
_COPY_USAGES = statement("copy_usages")
_COPY_PAYLOADS = statement("copy_payloads")
_CODEC_PLAIN: Final = 0
_quantities_json = msgspec.json.Encoder(decimal_format="number").encode
# jsonb's binary format is a version number, 1, and the JSON text
_JSONB_VERSION: Final = b"\x01"
_NAMES_CACHED_MAX: Final = 10_000
_names: dict[tuple[str, str | None, str | None], bytes] = {}


def transact(
    conn: Connection[Any],
    usages: Sequence[Usage],
    rejected: Sequence[Rejected],
    outcome: Outcome,
    before_commit: Callable[[], None] | None,
    hope: Hope | None = None,
) -> None:
    """Book usages and park rejections in one transaction; `outcome` grows only once it has committed.

    Raises:
        MissingWorkspacesError: Some workspaces do not exist; nothing was booked.
        psycopg.errors.UniqueViolation: The hope that all were new was vain; nothing was booked.
    """
    mine = Outcome()
    costs: dict[str, list[int]] = {}
    with conn.transaction():
        batch = claim(conn, usages, hope)
        if batch.new or batch.duplicates:
            costs = _costs(batch)
            states = _debit(conn, batch, costs)
            if batch.new:
                recorded_at = max(state.recorded_at for state in states.values())
                _append(conn, batch.new, costs, states, recorded_at)
                status_changes.append(conn, status_changes.of_usages(batch.new, costs, states, recorded_at))
            mine.states = states
        park(conn, [*rejected, *batch.conflicts], mine)
        if before_commit is not None:
            before_commit()
    if hope is not None:
        if batch.duplicates or batch.conflicts:
            hope.disappointed(failed=False)
        else:
            hope.fulfilled()
    outcome.states.update(mine.states)
    outcome.usages_booked += len(batch.new)
    outcome.usages_duplicate += sum(batch.duplicates.values())
    outcome.cost += sum(cost for cost, _ in costs.values())
    outcome.rejected.update(mine.rejected)
    outcome.refused.extend(batch.conflicts)


def _costs(batch: Claimed) -> dict[str, list[int]]:
    """Cost and number of new usages by workspace."""
    costs: dict[str, list[int]] = {name: [0, 0] for name in batch.duplicates}
    for usage in batch.new:
        sums = costs.get(usage.workspace_id)
        if sums is None:
            costs[usage.workspace_id] = [usage.cost, 1]
        else:
            sums[0] += usage.cost
            sums[1] += 1
    return costs


def _debit(conn: Connection[Any], batch: Claimed, costs: dict[str, list[int]]) -> dict[str, WorkspaceState]:
    names = sorted(costs)
    found = conn.execute(
        _DEBIT,
        {
            "workspace_ids": rows.TextArray([rows.text(name) for name in names]),
            "costs": rows.NumericArray([costs[name][0] for name in names]),
            "usages": rows.BigintArray([costs[name][1] for name in names]),
            "duplicates": rows.BigintArray([batch.duplicates.get(name, 0) for name in names]),
        },
        prepare=True,
    ).fetchall()
    states = {row[0]: state_from_row(row) for row in found}
    if len(states) != len(names):
        raise MissingWorkspacesError(name for name in names if name not in states)
    return states


def _append(
    conn: Connection[Any],
    usages: Sequence[Usage],
    costs: dict[str, list[int]],
    states: dict[str, WorkspaceState],
    recorded_at: int,
) -> None:
    """Append the rows of the log, each with its number and the balance after it, and their payloads."""
    # The update returned where each workspace ended; walking forward from where it began gives every row its balance.
    running: dict[str, list[int]] = {}
    packed_names: dict[str, bytes] = {}
    for name, (cost, count) in costs.items():
        state = states[name]
        running[name] = [state.balance + cost, state.usage_count - count, state.payment_count]
        packed_names[name] = rows.text(name)
    log = [rows.COPY_HEADER]
    payloads: list[bytes] = []
    numeric, text, usage_head, names = rows.numeric, rows.text, rows.usage_head, _names
    for usage in usages:
        current = running[usage.workspace_id]
        current[0] = balance = current[0] - usage.cost
        current[1] = seq = current[1] + 1
        what = (usage.tool, usage.provider, usage.model)
        workspace = packed_names[usage.workspace_id]
        quantities = _quantities_json(usage.quantities)
        log += (
            usage_head(seq, seq + current[2], usage.price_version, usage.occurred_at, recorded_at),
            numeric(usage.cost),
            numeric(balance),
            workspace,
            text(usage.event_id),
            names.get(what) or _remember(what),
            rows.prefixed(_JSONB_VERSION + quantities),
        )
        if usage.payload is not None:
            head = rows.payload_head(seq, recorded_at, _CODEC_PLAIN)
            payloads += (head, workspace, rows.prefixed(usage.payload))
    log.append(rows.COPY_TRAILER)
    with conn.cursor().copy(_COPY_USAGES) as copy:
        copy.write(b"".join(log))
    if payloads:
        with conn.cursor().copy(_COPY_PAYLOADS) as copy:
            copy.write(b"".join((rows.COPY_HEADER, *payloads, rows.COPY_TRAILER)))


def _remember(what: tuple[str, str | None, str | None]) -> bytes:
    """Packed tool, provider and model; few combinations make up nearly all of the traffic."""
    if len(_names) >= _NAMES_CACHED_MAX:
        _names.clear()
    packed = _names[what] = b"".join(map(rows.text_or_null, what))
    return packed
