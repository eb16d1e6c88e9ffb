"""Delivering notices: which is next, and what became of it.

A lane is a workspace's notices to one target. Whoever holds a lane's lease delivers them one after another, so a workspace's
notices arrive in order; a lease that its holder does not renew, because it was killed, runs out and another goes on. What
was sent and not noted is sent again: at least once, under the same id.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
from psycopg import Connection

from taximeter_db.backoff import Backoff
from taximeter_db.crypto.master_keys import MasterKeys
from taximeter_db.errors import NotFoundError
from taximeter_db.notices import sealing, targets
from taximeter_db.notices.targets import Target
from taximeter_db.sql import statements

LEASE_SECONDS: Final = 60
"""Longer than any try may take."""
LANES_OF_TARGET_MAX: Final = 8
"""How many tries of one target may run at once: one that is slow holds up no other."""
DEAD_AFTER_SECONDS: Final = 86_400
"""A notice that could not be delivered for this long is given up, and those behind it have their turn."""
KEPT_DAYS: Final = 90
"""For this long what ended can be looked up."""
TEST: Final = "notice.test"
"""The type of what `taximeter notify test` sends."""
DELIVERED: Final = "delivered"
FAILED: Final = "failed"
REFUSED: Final = "refused"
GONE: Final = "gone"
OUTCOMES: Final = (DELIVERED, FAILED, REFUSED, GONE)
"""Of a try. Refused: the address is not one that notices may be sent to. Gone: the receiver wants no more."""
_LANE_BACKOFF: Final = Backoff(1.0, 900.0)
_TARGET_BACKOFF: Final = Backoff(0.25, 60.0)
_RETRY_SECONDS_MAX: Final = 3_600.0
_SQL: Final = statements("notice_deliveries")


class Lane(NamedTuple):
    """A lane that is leased here."""

    workspace_id: str
    target_id: int
    lease: uuid.UUID

    @property
    def key(self) -> dict[str, Any]:
        """As the statements take it."""
        return {"workspace_id": self.workspace_id, "target_id": self.target_id}


class Delivery(msgspec.Struct, frozen=True):
    """A notice that is to be sent now. `secrets` are those that sign it, the newest first; empty for services."""

    lane: Lane
    notice_id: int
    public_id: str
    type: str
    body: str
    channel: str
    address: str
    secrets: tuple[str, ...]
    allow_private: bool
    tries: int
    target_failures: int
    age_seconds: int


class Try(msgspec.Struct, frozen=True):
    """How a try ended: one of `OUTCOMES`, and a sentence that quotes no address and nothing that was answered."""

    outcome: str
    detail: str
    milliseconds: int
    retry_after_seconds: float | None = None


class Sent(msgspec.Struct, frozen=True):
    """A notice and what became of it at one target; `outcome`, `detail` and `tried_at` are those of its last try."""

    notice_id: int
    public_id: uuid.UUID
    type: str
    happened_at: dt.datetime
    target_id: int
    state: str
    tries: int
    ended_at: dt.datetime | None
    outcome: str | None
    detail: str | None
    tried_at: dt.datetime | None


def is_due(conn: Connection[Any]) -> bool:
    """Whether there is something to deliver now."""
    row = conn.execute(_SQL["is_due"]).fetchone()
    return bool(row and row[0])


def claim(conn: Connection[Any], lanes: int) -> list[Lane]:
    """Lease at most `lanes` lanes that are due. Outside of a transaction. Lanes without a target are ended."""
    lease = uuid.uuid4()
    limits = {"lanes": lanes, "of_target": LANES_OF_TARGET_MAX, "seconds": LEASE_SECONDS, "lease": lease}
    claimed = [Lane(row[0], row[1], lease) for row in conn.execute(_SQL["claim"], limits)]
    if len(claimed) < lanes:
        _bury_orphans(conn)
    return claimed


def next_of(conn: Connection[Any], lane: Lane, masters: MasterKeys | None) -> Delivery | None:
    """The next notice of a lane; None where there is none now: the lane is given back.

    Raises:
        MasterKeyError: The target's address cannot be read here. The lane stays leased for a while.
    """
    with conn.transaction():
        if not _renew(conn, lane):
            return None
        target = conn.execute(_SQL["target"], lane.key).fetchone()
        while target is not None and (head := conn.execute(_SQL["head"], lane.key).fetchone()) is not None:
            if may_flap(target, head) and _is_flapping(conn, lane, (head[0], head[3], head[4]), target[7]):
                continue
            return delivery_of(lane, target, head, masters)
        _release(conn, lane)
    return None


def may_flap(target: Sequence[Any], head: Sequence[Any]) -> bool:
    """Whether a notice may be held back or left out for a target's quiet time. Both as `delivery_of` takes them."""
    return head[3] is not None and bool(target[7])


def delivery_of(lane: Lane, target: Sequence[Any], head: Sequence[Any], masters: MasterKeys | None) -> Delivery:
    """What is to be sent in a lane, from what the statements `target` and `head` return.

    Raises:
        MasterKeyError: The target's address cannot be read here.
    """
    notice_id, public_id, kind, _, _, body, tries, age = head
    owner, channel, address, secret, secret_before, master, allow_private, _, failures = target
    signing = [stored for stored in (secret, secret_before) if stored is not None]
    return Delivery(
        lane,
        notice_id,
        f"notice_{public_id.hex}",
        kind,
        body,
        channel,
        sealing.reveal(masters, owner, address, master),
        tuple(sealing.reveal(masters, owner, stored, master) for stored in signing),
        allow_private,
        tries,
        failures,
        age,
    )


def finish(conn: Connection[Any], delivery: Delivery, tried: Try) -> bool:
    """Note how a try ended. True: the lane is still leased, and its next notice may be sent.

    Where the lease ran out meanwhile, another has this notice now: nothing is noted.
    """
    lane = delivery.lane
    with conn.transaction():
        if not _renew(conn, lane):
            return False
        which = {**lane.key, "notice_id": delivery.notice_id}
        conn.execute(
            _SQL["log_try"],
            {**which, "outcome": tried.outcome, "detail": tried.detail, "milliseconds": tried.milliseconds},
        )
        if tried.outcome == DELIVERED:
            conn.execute(_SQL["end"], {**which, "state": "delivered", "tried": 1})
            if delivery.target_failures:
                conn.execute(_SQL["target_answered"], lane.key)
            return True
        if tried.outcome == GONE:
            conn.execute(_SQL["end"], {**which, "state": "dead", "tried": 1})
            conn.execute(_SQL["disable_target"], {**lane.key, "why": tried.detail})
            conn.execute(_SQL["bury_lane"], lane.key)
            _release(conn, lane)
            return False
        dead = delivery.age_seconds >= DEAD_AFTER_SECONDS
        conn.execute(_SQL["end"], {**which, "state": "dead" if dead else "pending", "tried": 1})
        wait = min(max(_LANE_BACKOFF.seconds(delivery.tries), tried.retry_after_seconds or 0.0), _RETRY_SECONDS_MAX)
        pause = min(max(_TARGET_BACKOFF.seconds(delivery.target_failures), tried.retry_after_seconds or 0.0), wait)
        conn.execute(_SQL["target_failed"], {**lane.key, "seconds": pause})
        _release(conn, lane, None if dead else wait)
    return False


def give_back(conn: Connection[Any], lane: Lane) -> None:
    """End a lease before its time."""
    with conn.transaction():
        if _renew(conn, lane):
            _release(conn, lane)


def send_test(conn: Connection[Any], target: Target, by: str) -> int:
    """Queue a notice for one target, whatever its types, to try it out; returns the notice's number."""
    now = conn.execute(_SQL["now"]).fetchone()
    assert now is not None  # noqa: S101 -- it always returns one
    content = {
        "type": TEST,
        "timestamp": now[0],
        "data": {
            "workspace": target.workspace_id,
            "cause": {"kind": "test", "by": by},
            "advice": "This is a test. Nothing has happened.",
        },
    }
    row = conn.execute(
        _SQL["put_test"],
        {
            "public_id": uuid.uuid4(),
            "workspace_id": target.workspace_id,
            "target_id": target.target_id,
            "type": TEST,
            "body": json.dumps(content, separators=(",", ":")),
        },
    ).fetchone()
    assert row is not None  # noqa: S101 -- as above
    return int(row[0])


def replay(conn: Connection[Any], target: Target, workspace_id: str | None = None) -> int:
    """Try again what was given up at a target, of one workspace or of all; returns how many those are.

    A target that was disabled is enabled by it.
    """
    with conn.transaction():
        row = conn.execute(_SQL["replay"], {"target_id": target.target_id, "workspace_id": workspace_id}).fetchone()
        targets.enable(conn, target)  # after its lanes: in the order in which `finish` locks them
    return int(row[0]) if row else 0


def sent(
    conn: Connection[Any],
    workspace_id: str,
    *,
    target_id: int | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[Sent]:
    """The newest notices of a workspace, one entry for each target."""
    values = {"workspace_id": workspace_id, "target_id": target_id, "before": before, "limit": limit}
    return [Sent(*row) for row in conn.execute(_SQL["sent"], values)]


def counts(conn: Connection[Any]) -> dict[int, tuple[int, int]]:
    """How many deliveries of each target are pending, and how many are dead; targets without any are left out."""
    return {row[0]: (row[1], row[2]) for row in conn.execute(_SQL["counts"])}


def outcome_of(conn: Connection[Any], target: Target, notice_id: int) -> Sent:
    """What became of one notice at one target.

    Raises:
        NotFoundError: It was not queued, or is forgotten.
    """
    for entry in sent(conn, target.workspace_id, target_id=target.target_id, before=notice_id + 1, limit=1):
        if entry.notice_id == notice_id:
            return entry
    raise NotFoundError("There is no such notice any more.")


def forget(conn: Connection[Any], days: int = KEPT_DAYS) -> int:
    """Delete what ended more than `days` days ago; returns how many notices went."""
    gone = 0
    while (count := conn.execute(_SQL["forget"], {"days": days}).rowcount) > 0:
        gone += count
    return gone


def _is_flapping(conn: Connection[Any], lane: Lane, head: tuple[int, str, str], quiet_seconds: int) -> bool:
    """Whether the target need not get a state now. If so, the notice is held back, or ended where a newer one says more."""
    notice_id, subject, state = head
    values = {**lane.key, "notice_id": notice_id, "subject": subject, "state": state, "seconds": quiet_seconds}
    conn.execute(_SQL["supersede_held"], values)
    row = conn.execute(_SQL["flapping"], values).fetchone()
    assert row is not None  # noqa: S101 -- an aggregate always returns one
    quiet_until, last_told, newer = row
    if quiet_until is None:
        return False
    if newer or last_told == state:
        conn.execute(_SQL["end"], {**values, "state": "superseded", "tried": 0})
    else:
        conn.execute(_SQL["hold"], {**values, "until": quiet_until})
    return True


def _bury_orphans(conn: Connection[Any]) -> None:
    for workspace_id, target_id in conn.execute(_SQL["orphans"]).fetchall():
        key = {"workspace_id": workspace_id, "target_id": target_id}
        with conn.transaction():
            conn.execute(_SQL["lock_any_lane"], key)
            conn.execute(_SQL["bury_lane"], key)
            conn.execute(_SQL["end_lane"], key)


def _renew(conn: Connection[Any], lane: Lane) -> bool:
    values = {**lane.key, "lease": lane.lease, "seconds": LEASE_SECONDS}
    return conn.execute(_SQL["renew"], values).fetchone() is not None


def _release(conn: Connection[Any], lane: Lane, retry_seconds: float | None = None) -> None:
    conn.execute(_SQL["release"], {**lane.key, "retry_seconds": retry_seconds})
