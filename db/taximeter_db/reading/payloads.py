"""What events said: inputs, outputs and metadata, opened for whoever may look."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final, Literal

import msgspec
from psycopg import Connection

from taximeter_db import sealing
from taximeter_db.errors import PayloadError
from taximeter_db.master_keys import MasterKeys
from taximeter_db.reading.usages import UsageRow

_READ: Final = """
SELECT seq, codec, octet_length(payload),
       CASE WHEN codec = 0 THEN substring(payload FROM 1 FOR %(bytes_max)s)
            WHEN octet_length(payload) <= %(stored_max)s THEN payload ELSE substring(payload FROM 1 FOR 4) END
FROM taximeter.usage_payloads
WHERE workspace_id = %(workspace_id)s AND seq = ANY(%(seqs)s)
  AND recorded_at BETWEEN %(since)s AND %(until)s
"""
_ERASURES: Final = "SELECT erased_at FROM taximeter.payload_erasures WHERE workspace_id = %s ORDER BY erased_at"
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
    found = conn.execute(
        _READ,
        {
            "workspace_id": workspace_id,
            "seqs": [row.seq for row in rows],
            "since": min(row.recorded_at for row in rows),
            "until": max(row.recorded_at for row in rows),
            "bytes_max": bytes_max,
            "stored_max": bytes_max * _OPENED_TIMES_MAX,
        },
    ).fetchall()
    numbers = {sealing.key_number(data) for _, codec, _, data in found if codec >= sealing.SEALED}
    keys = sealing.data_keys(conn, masters, workspace_id, numbers) if numbers else {}
    missing = numbers - keys.keys()
    erasures: list[dt.datetime] = []
    locked: set[int] = set()
    if missing or any(codec == sealing.ERASED for _, codec, _, _ in found):
        erasures = [row[0] for row in conn.execute(_ERASURES, [workspace_id])]
        locked = sealing.existing_keys(conn, workspace_id, missing)
    by_seq = {row.seq: row for row in rows}
    return {
        seq: _open(by_seq[seq], codec, size, bytes(data), bytes_max, keys, locked, erasures)
        for seq, codec, size, data in found
    }


def _open(
    row: UsageRow,
    codec: int,
    size: int,
    data: bytes,
    bytes_max: int,
    keys: dict[int, bytes],
    locked: set[int],
    erasures: list[dt.datetime],
) -> Payload:
    if codec == sealing.PLAIN:
        return Payload(size, data)
    number = sealing.key_number(data) if codec >= sealing.SEALED else None
    if codec == sealing.ERASED or (number is not None and number not in keys and number not in locked):
        erased_at = next((moment for moment in erasures if moment >= row.recorded_at), None)
        return Payload(0, b"", "erased", erased_at)
    if number in locked:
        return Payload(size, b"", "locked")
    if len(data) < size:
        return Payload(size, b"")
    try:
        whole = sealing.unseal(codec, data, row.workspace_id, row.event_id, None if number is None else keys[number])
    except PayloadError:
        return Payload(size, b"", "damaged")
    return Payload(len(whole), whole[:bytes_max])
