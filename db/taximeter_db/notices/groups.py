"""Delivering the notices of several lanes in one transaction.

What `deliveries` does lane by lane costs a dozen statements and two commits a notice, one after another: when many workspaces
cross a limit at once, their notices wait for that. Here what is usual (the receiver took it, nothing is held back) is noted for
all lanes together; anything else goes lane by lane as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec
from psycopg import Connection, errors

from taximeter_db.crypto.master_keys import MasterKeys
from taximeter_db.errors import MasterKeyError
from taximeter_db.notices import deliveries
from taximeter_db.notices.deliveries import Delivery, Lane, Try
from taximeter_db.sql import statements

_SQL: Final = statements("notice_groups")


class Reading(msgspec.Struct, frozen=True):
    """How stored addresses are read: by which master keys, and who is told of a lane whose target cannot be read with them.

    Such a lane stays leased for a while.
    """

    masters: MasterKeys | None
    unreadable: Callable[[Lane, MasterKeyError], None]


def first_of(conn: Connection[Any], lanes: Sequence[Lane], reading: Reading) -> list[Delivery]:
    """The next notices of lanes that were leased just now; a lane without one is given back. Outside of a transaction."""
    return _deliveries(conn, lanes, _next(conn, lanes), reading) if lanes else []


def finish(
    conn: Connection[Any], tried: Sequence[tuple[Delivery, Try]], reading: Reading, *, goes_on: bool
) -> list[Delivery]:
    """Note how tries ended, and return the next notices of their lanes. Outside of a transaction.

    Where a lease ran out meanwhile, another has that lane now: nothing is noted. Lanes without a next notice are given
    back; if not `goes_on`, all of them.
    """
    usual = [(delivery, end) for delivery, end in tried if end.outcome == deliveries.DELIVERED]
    usual = [(delivery, end) for delivery, end in usual if not delivery.target_failures]
    noted: set[Lane] = set()
    following: list[Delivery] = []
    if len(usual) > 1:
        try:
            kept, rows = _finish_delivered(conn, usual, goes_on=goes_on)
        except errors.DeadlockDetected:
            pass  # a booking locked two of these lanes the other way around: one lane at a time deadlocks nobody
        else:
            noted = {delivery.lane for delivery, _ in usual}
            following = _deliveries(conn, kept, rows, reading)
    for delivery, end in tried:
        if delivery.lane not in noted and deliveries.finish(conn, delivery, end):
            if goes_on:
                following += _one_by_one(conn, [delivery.lane], reading)
            else:
                deliveries.give_back(conn, delivery.lane)
    return following


def _finish_delivered(
    conn: Connection[Any], usual: Sequence[tuple[Delivery, Try]], *, goes_on: bool
) -> tuple[list[Lane], dict[tuple[str, int], Any]]:
    """Note deliveries; returns the lanes that are still leased, with what comes next in them."""
    with conn.transaction():
        leases = {**_arrays(delivery.lane for delivery, _ in usual), "seconds": deliveries.LEASE_SECONDS}
        leases["leases"] = [delivery.lane.lease for delivery, _ in usual]
        held = {(workspace_id, target_id) for workspace_id, target_id in conn.execute(_SQL["renew"], leases)}
        mine = [(delivery, end) for delivery, end in usual if delivery.lane[:2] in held]
        if not mine:
            return [], {}
        lanes = [delivery.lane for delivery, _ in mine]
        conn.execute(
            _SQL["delivered"],
            {
                **_arrays(lanes),
                "notice_ids": [delivery.notice_id for delivery, _ in mine],
                "details": [end.detail for _, end in mine],
                "milliseconds": [end.milliseconds for _, end in mine],
            },
        )
        rows = _next(conn, lanes) if goes_on else {}
        if empty := [lane for lane in lanes if lane[:2] not in rows]:
            conn.execute(_SQL["release"], _arrays(empty))
    return [lane for lane in lanes if lane[:2] in rows], rows


def _next(conn: Connection[Any], lanes: Sequence[Lane]) -> dict[tuple[str, int], Any]:
    """Target and next notice, by workspace and target."""
    return {(row[0], row[1]): row[2:] for row in conn.execute(_SQL["next"], _arrays(lanes))}


def _deliveries(
    conn: Connection[Any], lanes: Iterable[Lane], rows: dict[tuple[str, int], Any], reading: Reading
) -> list[Delivery]:
    found: list[Delivery] = []
    for lane in lanes:
        row = rows.get(lane[:2])
        if row is None or deliveries.may_flap(target=row[:9], head=row[9:]):
            found += _one_by_one(conn, [lane], reading)
            continue
        try:
            found.append(deliveries.delivery_of(lane, row[:9], row[9:], reading.masters))
        except MasterKeyError as error:
            reading.unreadable(lane, error)
    return found


def _one_by_one(conn: Connection[Any], lanes: Iterable[Lane], reading: Reading) -> list[Delivery]:
    found: list[Delivery] = []
    for lane in lanes:
        try:
            delivery = deliveries.next_of(conn, lane, reading.masters)
        except MasterKeyError as error:
            reading.unreadable(lane, error)
            continue
        if delivery is not None:
            found.append(delivery)
    return found


def _arrays(lanes: Iterable[Lane]) -> dict[str, Any]:
    lanes = list(lanes)
    return {
        "workspace_ids": [lane.workspace_id for lane in lanes],
        "target_ids": [lane.target_id for lane in lanes],
    }
