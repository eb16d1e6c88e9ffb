"""Quarantine: what could not be booked, kept whole until it is replayed or dismissed.

An entry is never deleted, and changed only by an erasure; it can be resolved once, with who did it and why (the database
holds to that). Every attempt at it is logged with who made it, when, and what came of it; so is a correction that was tried.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from psycopg import Connection
from sqlalchemy import ARRAY, BigInteger, Integer, Interval, Text, any_, bindparam, func, insert, or_, select, update

from taximeter_db.core import Statement
from taximeter_db.errors import NotFoundError, SettingsError
from taximeter_db.ledger.common import storable
from taximeter_db.ledger.events import PriceQuery
from taximeter_db.models.base import Id
from taximeter_db.models.quarantine import QuarantineAction, Quarantined

DISMISSED, REPLAYED = "dismissed", "replayed"
_FORGOTTEN_AT_ONCE = 500
_HEADS_AT_ONCE = 1_000
PAGE_ENTRIES_MAX = 500
PAGE_BYTES_MAX = 8 * 1024 * 1024
"""Of events; decoded they take several times as much. One that is larger has a page of its own."""

_ENTRY = (
    Quarantined.id,
    Quarantined.kind,
    Quarantined.workspace_id,
    Quarantined.event_id,
    Quarantined.reason,
    Quarantined.detail,
    Quarantined.event,
    Quarantined.content_type,
    Quarantined.received_at,
    Quarantined.resolved_at,
    Quarantined.resolution,
    Quarantined.resolved_by,
    Quarantined.resolution_note,
    Quarantined.properties,
)
_OPEN = Quarantined.resolved_at.is_(None)
_GET = Statement(select(*_ENTRY).where(Quarantined.id == bindparam("id")))
_HEADS = Statement(
    # The length of a bytea is known without reading it.
    select(Quarantined.id, Quarantined.workspace_id, func.octet_length(Quarantined.event), Quarantined.price_query)
    .where(_OPEN, Quarantined.reason == bindparam("of_reason"), Quarantined.id > bindparam("after"))
    .order_by(Quarantined.id)
    .limit(_HEADS_AT_ONCE)
)
_OPEN_IDS = Statement(
    select(Quarantined.id)
    .where(
        _OPEN,
        or_(bindparam("of_reason", type_=Text).is_(None), Quarantined.reason == bindparam("of_reason", type_=Text)),
        Quarantined.id > bindparam("after"),
    )
    .order_by(Quarantined.id)
    .limit(bindparam("limit", type_=Integer))
)
_READ = Statement(
    select(*_ENTRY)
    .where(Quarantined.id == any_(bindparam("ids", type_=ARRAY(BigInteger))), _OPEN)
    .order_by(Quarantined.id)
)
_COUNTS = Statement(
    select(Quarantined.reason, func.count()).where(_OPEN).group_by(Quarantined.reason).order_by(Quarantined.reason)
)
_RESOLVE = Statement(
    update(Quarantined)
    .where(Quarantined.id == any_(bindparam("ids", type_=ARRAY(BigInteger))), _OPEN)
    .values(
        resolved_at=func.clock_timestamp(),
        resolution=bindparam("as_resolution"),
        resolved_by=bindparam("by"),
        resolution_note=bindparam("note"),
    )
    .returning(Quarantined.id)
)
_LOG = Statement(
    insert(QuarantineAction).values(
        entry_id=bindparam("of_entry"),
        action=bindparam("tried"),
        result=bindparam("came"),
        reason=bindparam("with_reason"),
        detail=bindparam("with_detail"),
        note=bindparam("with_note"),
        correction=bindparam("with_correction"),
        done_by=bindparam("by"),
    )
)
_ACTIONS = Statement(
    select(
        QuarantineAction.entry_id,
        QuarantineAction.action,
        QuarantineAction.result,
        QuarantineAction.reason,
        QuarantineAction.detail,
        QuarantineAction.note,
        QuarantineAction.correction,
        QuarantineAction.done_by,
        QuarantineAction.done_at,
    )
    .where(QuarantineAction.entry_id == bindparam("of_entry"))
    .order_by(QuarantineAction.id)
)
_NEWEST = Statement(select(func.coalesce(func.max(Quarantined.id), 0)))
_FORGET = Statement(
    select(
        func.taximeter.forget_dismissed(
            func.clock_timestamp() - bindparam("older_than", type_=Interval), _FORGOTTEN_AT_ONCE
        )
    )
)


@functools.cache
def _listing(*, resolved: bool, by_reason: bool, by_workspace: bool) -> Statement:
    """Entries after a number, of those that are asked for: a plan for each set of conditions."""
    listing = select(*_ENTRY).where(Quarantined.id > bindparam("after")).order_by(Quarantined.id)
    if not resolved:
        listing = listing.where(_OPEN)
    if by_reason:
        listing = listing.where(Quarantined.reason == bindparam("reason"))
    if by_workspace:
        listing = listing.where(Quarantined.workspace_id == bindparam("workspace_id", type_=Id))
    return Statement(listing.limit(bindparam("limit", type_=Integer)))


class Entry(msgspec.Struct, frozen=True):
    """One quarantined event. `event` is the bytes as received: inputs and outputs included, so mind who sees it.

    `properties` is what the sender gave with the message beside them: see `taximeter_db.ledger.events.Rejected`.
    """

    id: int
    kind: str
    workspace_id: str | None
    event_id: str | None
    reason: str
    detail: str
    event: bytes
    content_type: str | None
    received_at: dt.datetime
    resolved_at: dt.datetime | None
    resolution: str | None
    resolved_by: str | None
    resolution_note: str | None
    properties: dict[str, Any] | None = None


class Head(NamedTuple):
    """What tells of an open entry without reading its event."""

    id: int
    workspace_id: str | None
    event_bytes: int
    price_query: PriceQuery | None


class Attempt(msgspec.Struct, frozen=True):
    """Who does something with an entry, why, and with which corrected event (or array of them) in its place."""

    by: str
    note: str | None = None
    correction: bytes | None = None


class Action(msgspec.Struct, frozen=True):
    """Something that was done with an entry: ``replay``, ``dismiss`` or ``erase``.

    `result` is ``booked``, ``duplicate``, ``kept`` (with `reason` and `detail` of what still stands in the way),
    ``dismissed`` or ``erased``; `correction` the event that was tried in the entry's place, inputs and outputs included.
    """

    entry_id: int
    action: str
    result: str
    reason: str | None
    detail: str | None
    note: str | None
    correction: bytes | None
    done_by: str
    done_at: dt.datetime


def get(conn: Connection[Any], entry_id: int) -> Entry:
    """One entry, resolved or not.

    Raises:
        NotFoundError: There is none with that number.
    """
    row = _GET.first(conn, id=entry_id)
    if row is None:
        raise NotFoundError(
            f"There is no quarantine entry {entry_id}. `taximeter quarantine list` shows what there is."
        )
    return Entry(*row)


def find(
    conn: Connection[Any],
    *,
    reason: str | None = None,
    workspace_id: str | None = None,
    resolved: bool = False,
    after: int = 0,
    limit: int = 100,
) -> list[Entry]:
    """Entries by ascending number, after a given one; open ones only, unless `resolved`."""
    values: dict[str, Any] = {"after": after, "limit": limit}
    if reason is not None:
        values["reason"] = reason
    if workspace_id is not None:
        values["workspace_id"] = workspace_id
    listing = _listing(resolved=resolved, by_reason="reason" in values, by_workspace="workspace_id" in values)
    return [Entry(*row) for row in listing.all(conn, **values)]


def pages(
    conn: Connection[Any], *, reason: str, wanted: Callable[[Head], bool] = lambda _head: True
) -> Iterator[list[Entry]]:
    """The open entries of a reason by ascending number, in pages that are bounded by number and bytes.

    ``wanted`` is asked before an entry's event is read. The pages hold what is open when they are read.
    """
    after, page, size = 0, list[int](), 0
    while rows := _HEADS.all(conn, of_reason=reason, after=after):
        for head in (_head(row) for row in rows):
            after = head.id
            if not wanted(head):
                continue
            if page and (size + head.event_bytes > PAGE_BYTES_MAX or len(page) == PAGE_ENTRIES_MAX):
                yield [Entry(*row) for row in _READ.all(conn, ids=page)]
                page, size = [], 0
            page.append(head.id)
            size += head.event_bytes
    if page:
        yield [Entry(*row) for row in _READ.all(conn, ids=page)]


def _head(row: Sequence[Any]) -> Head:
    entry_id, workspace_id, event_bytes, query = row
    return Head(entry_id, workspace_id, event_bytes, None if query is None else msgspec.convert(query, PriceQuery))


def open_ids(conn: Connection[Any], *, reason: str | None, after: int, limit: int) -> list[int]:
    """Numbers of open entries after a given one, of one reason or of all; no event is read."""
    return _OPEN_IDS.scalars(conn, of_reason=reason, after=after, limit=limit)


def newest(conn: Connection[Any]) -> int:
    """Number of the newest entry; 0: there never was one."""
    return int(_NEWEST.scalar(conn))


def open_counts(conn: Connection[Any]) -> dict[str, int]:
    """Number of open entries by reason."""
    return dict(_COUNTS.all(conn))


def resolve(
    conn: Connection[Any], ids: Sequence[int], resolution: str, *, by: str, note: str | None = None
) -> list[int]:
    """Mark open entries as resolved; returns the numbers of those that were still open."""
    text = None if note is None else storable(note)
    return _RESOLVE.scalars(conn, ids=list(ids), as_resolution=resolution, by=by, note=text)


def log_replay(
    conn: Connection[Any],
    entry_id: int,
    result: str,
    attempt: Attempt,
    *,
    reason: str | None = None,
    detail: str | None = None,
) -> None:
    """Log an attempt to book an entry, and why the entry was kept if it was."""
    _log(conn, entry_id, attempt, _Came("replay", result, reason, detail))


def log_erasure(conn: Connection[Any], entry_id: int, *, by: str) -> None:
    """Log that what an entry said was erased."""
    _log(conn, entry_id, Attempt(by), _Came("erase", "erased"))


class _Came(NamedTuple):
    """What an attempt came to."""

    action: str
    result: str
    reason: str | None = None
    detail: str | None = None


def _log(conn: Connection[Any], entry_id: int, attempt: Attempt, came: _Came) -> None:
    _LOG.run(
        conn,
        of_entry=entry_id,
        tried=came.action,
        came=came.result,
        with_reason=came.reason,
        with_detail=None if came.detail is None else storable(came.detail),
        with_note=None if attempt.note is None else storable(attempt.note),
        with_correction=attempt.correction,
        by=attempt.by,
    )


def actions(conn: Connection[Any], entry_id: int) -> list[Action]:
    """What was tried with an entry, the oldest first."""
    return [Action(*row) for row in _ACTIONS.all(conn, of_entry=entry_id)]


def dismiss(conn: Connection[Any], entry_id: int, *, by: str, note: str) -> Entry:
    """Close an entry without booking it, with a reason.

    Raises:
        NotFoundError: There is none with that number, or it was resolved before.
        SettingsError: No reason was given.
    """
    if not note.strip():
        raise SettingsError("Say why this event is dismissed; the reason stays with it.")
    with conn.transaction():
        if not resolve(conn, [entry_id], DISMISSED, by=by, note=note):
            entry = get(conn, entry_id)
            raise NotFoundError(
                f"Quarantine entry {entry_id} was resolved before ({entry.resolution}); it stays as it is."
            )
        _log(conn, entry_id, Attempt(by, note), _Came("dismiss", "dismissed"))
    return get(conn, entry_id)


def forget_dismissed(conn: Connection[Any], *, older_than: dt.timedelta) -> int:
    """Empty the events of entries that were dismissed longer ago than that, a portion a transaction; returns how many.

    Their digests, reasons and details stay, and so does the log of what was tried with them.
    """
    emptied = 0
    while portion := _FORGET.scalar(conn, older_than=older_than):
        emptied += portion
    return emptied
