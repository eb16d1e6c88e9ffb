"""What events said: inputs, outputs and metadata, opened for whoever may look."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec
from psycopg import Connection
from sqlalchemy import ARRAY, BigInteger, Integer, any_, bindparam, case, func, select

from taximeter_db.core import Statement
from taximeter_db.crypto import payload_crypto
from taximeter_db.crypto.master_keys import MasterKeys
from taximeter_db.errors import PayloadError
from taximeter_db.models.keys import PayloadErasure
from taximeter_db.models.ledger import UsagePayload
from taximeter_db.queries.usages import UsageRow

_SIZE: Final = func.octet_length(UsagePayload.payload)
_READ: Final = Statement(
    select(
        UsagePayload.seq,
        UsagePayload.codec,
        _SIZE,
        case(
            (UsagePayload.codec == 0, func.substring(UsagePayload.payload, 1, bindparam("bytes_max", type_=Integer))),
            (bindparam("stored_max", type_=Integer) >= _SIZE, UsagePayload.payload),
            else_=func.substring(UsagePayload.payload, 1, 4),
        ),
    ).where(
        UsagePayload.workspace_id == bindparam("workspace_id"),
        UsagePayload.seq == any_(bindparam("seqs", type_=ARRAY(BigInteger))),
        UsagePayload.recorded_at.between(bindparam("since"), bindparam("until")),
    )
)
_ERASURES: Final = Statement(
    select(PayloadErasure.erased_at)
    .where(PayloadErasure.workspace_id == bindparam("workspace_id"))
    .order_by(PayloadErasure.erased_at)
)
_OPENED_TIMES_MAX: Final = 4
"""What is compressed or encrypted can only be opened whole; so much larger than what is wanted it may be."""


class Payload(msgspec.Struct, frozen=True):
    """The JSON object of input, output and metadata; `size` bytes in all, of which `data` may be the beginning.

    `gone` says why there is nothing to show: ``erased`` (then `erased_at` says when), ``locked`` (its master key is not at
    hand) or ``damaged`` (it was changed in the database).
    """

    size: int
    data: bytes
    gone: Literal["erased", "locked", "damaged"] | None = None
    erased_at: dt.datetime | None = None

    @property
    def whole(self) -> bool:
        """Whether `data` is all of it."""
        return self.gone is None and len(self.data) == self.size


def payloads(
    conn: Connection[Any], workspace_id: str, rows: list[UsageRow], bytes_max: int, masters: MasterKeys | None = None
) -> dict[int, Payload]:
    """The first `bytes_max` bytes of these usages' payloads, by number; of what is stored much larger, nothing.

    Keys are looked up each time: what is erased is gone at once.
    """
    if not rows:
        return {}
    found = _READ.all(
        conn,
        workspace_id=workspace_id,
        seqs=[row.seq for row in rows],
        since=min(row.recorded_at for row in rows),
        until=max(row.recorded_at for row in rows),
        bytes_max=bytes_max,
        stored_max=bytes_max * _OPENED_TIMES_MAX,
    )
    numbers = {payload_crypto.key_number(data) for _, codec, _, data in found if codec >= payload_crypto.ENCRYPTED}
    keys = payload_crypto.data_keys(conn, masters, workspace_id, numbers) if numbers else {}
    missing = numbers - keys.keys()
    unlocking = _Unlocking(keys)
    if missing or any(codec == payload_crypto.ERASED for _, codec, _, _ in found):
        unlocking = _Unlocking(
            keys,
            payload_crypto.existing_keys(conn, workspace_id, missing),
            _ERASURES.scalars(conn, workspace_id=workspace_id),
        )
    by_seq = {row.seq: row for row in rows}
    return {
        seq: _open(by_seq[seq], (codec, size, bytes(data)), bytes_max, unlocking) for seq, codec, size, data in found
    }


class _Unlocking(NamedTuple):
    """What opens a workspace's payloads: data keys by number, those that no master key here opens, times of erasures."""

    keys: dict[int, bytes]
    locked: Collection[int] = ()
    erasures: Sequence[dt.datetime] = ()


def _open(row: UsageRow, stored: tuple[int, int, bytes], bytes_max: int, unlocking: _Unlocking) -> Payload:
    """What is stored of one usage: its codec, the payload's size, and the bytes that were read."""
    codec, size, data = stored
    keys, locked, erasures = unlocking
    if codec == payload_crypto.PLAIN:
        return Payload(size, data)
    number = payload_crypto.key_number(data) if codec >= payload_crypto.ENCRYPTED else None
    if codec == payload_crypto.ERASED or (number is not None and number not in keys and number not in locked):
        erased_at = next((moment for moment in erasures if moment >= row.recorded_at), None)
        return Payload(0, b"", "erased", erased_at)
    if number in locked:
        return Payload(size, b"", "locked")
    if len(data) < size:
        return Payload(size, b"")
    try:
        whole = payload_crypto.decode(
            codec, data, row.workspace_id, row.event_id, None if number is None else keys[number]
        )
    except PayloadError:
        return Payload(size, b"", "damaged")
    return Payload(len(whole), whole[:bytes_max])
