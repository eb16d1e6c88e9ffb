"""Checkpoints: where every workspace's log stood at a moment, signed, to be kept outside of the database.

Whoever can write everything in a database can also compute a new hash chain. What was written down elsewhere before that
can no longer be made to agree. The file is lines of JSON, the last one an HMAC-SHA256 of all before it.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from psycopg import Connection, IsolationLevel

from taximeter_db.errors import CheckpointError
from taximeter_db.verify_chunks import Start

KEY_BYTES_MIN: Final = 16
_VERSION: Final = 1
_STATES: Final = """
SELECT workspace_id, usage_count, payment_count, usage_cost::text, payment_total::text, encode(chain, 'hex')
FROM taximeter.workspaces ORDER BY workspace_id
"""
_COMPARE: Final = """
SELECT c.workspace_id, c.usages + c.payments
FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::text[]::numeric[], %s::bytea[])
     AS c (workspace_id, usages, payments, balance, chain)
LEFT JOIN taximeter.usages AS u
  ON u.workspace_id = c.workspace_id AND u.seq = c.usages AND u.entry = c.usages + c.payments
LEFT JOIN taximeter.payments AS p
  ON p.workspace_id = c.workspace_id AND p.seq = c.payments AND p.entry = c.usages + c.payments
LEFT JOIN taximeter.chain_starts AS s
  ON s.workspace_id = c.workspace_id AND s.usage_count = c.usages AND s.payment_count = c.payments
WHERE c.chain <> coalesce(u.link, p.link, s.chain, '')
   OR (c.usages + c.payments > 0 AND coalesce(u.balance_after, p.balance_after) IS DISTINCT FROM c.balance)
ORDER BY c.workspace_id
"""
_COMPARED_AT_ONCE: Final = 5_000
_NOT_WHOLE: Final = "The file is no whole checkpoint of Taximeter."


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line. `made_at` is the database's time."""

    taximeter_checkpoint: int
    made_at: dt.datetime
    workspaces: int


class _Seal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    hmac_sha256: str


class Checkpoint(msgspec.Struct, frozen=True):
    """A checkpoint whose signature was right: where each workspace stood, by its id."""

    made_at: dt.datetime
    starts: dict[str, Start]


_Line = tuple[str, int, int, str, str, str]
_read_line = msgspec.json.Decoder(_Line).decode


def make(conn: Connection[Any], key: bytes) -> Iterator[bytes]:
    """The lines of a checkpoint of this moment, signed.

    Raises:
        CheckpointError: The key is too short.
    """
    signature = _signature(key)
    before = conn.isolation_level, conn.read_only
    conn.isolation_level, conn.read_only = IsolationLevel.REPEATABLE_READ, True
    try:
        with conn.transaction():
            now, count = conn.execute("SELECT now(), count(*) FROM taximeter.workspaces").fetchone()  # type: ignore[misc]
            lines = [msgspec.json.encode(Header(_VERSION, now, count))]
            lines += (msgspec.json.encode(row) for row in conn.execute(_STATES))
    finally:
        conn.isolation_level, conn.read_only = before
    for line in lines:
        signature.update(line + b"\n")
        yield line + b"\n"
    yield msgspec.json.encode(_Seal(signature.hexdigest())) + b"\n"


def read(lines: Sequence[bytes], key: bytes) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: It was not signed with this key, or is not whole.
    """
    signed = _signed(lines, key)
    try:
        header = msgspec.json.decode(signed[0], type=Header)
        starts = [_start(_read_line(line)) for line in signed[1:]]
    except (ValueError, IndexError) as error:
        raise CheckpointError(_NOT_WHOLE) from error
    if header.taximeter_checkpoint != _VERSION or header.workspaces != len(starts):
        raise CheckpointError("The checkpoint is of another version of Taximeter, or not whole.")
    return Checkpoint(header.made_at, {start.workspace_id: start for start in starts})


def _signed(lines: Sequence[bytes], key: bytes) -> Sequence[bytes]:
    """The lines before the signature, once it is known to be theirs: nothing in them is believed before."""
    signature = _signature(key)
    for line in lines[:-1]:
        signature.update(line)
    try:
        seal = msgspec.json.decode(lines[-1], type=_Seal)
    except (ValueError, IndexError) as error:
        raise CheckpointError(_NOT_WHOLE) from error
    if not hmac.compare_digest(seal.hmac_sha256, signature.hexdigest()):
        raise CheckpointError(
            "The checkpoint was changed, or signed with another key. Use the file as it was written, and the key of then."
        )
    return lines[:-1]


def _start(line: _Line) -> Start:
    workspace_id, usages, payments, cost, paid, chain = line
    return Start(workspace_id, usages, payments, cost, paid, bytes.fromhex(chain))


def _signature(key: bytes) -> hmac.HMAC:
    if len(key) < KEY_BYTES_MIN:
        raise CheckpointError(f"The checkpoint key must have at least {KEY_BYTES_MIN} bytes.")
    return hmac.new(key, digestmod=hashlib.sha256)


def moved(conn: Connection[Any], checkpoint: Checkpoint) -> Iterator[tuple[str, int]]:
    """Workspaces whose log up to the checkpoint is no longer the one it was made of, and the entry of the checkpoint."""
    starts = list(checkpoint.starts.values())
    for place in range(0, len(starts), _COMPARED_AT_ONCE):
        some = starts[place : place + _COMPARED_AT_ONCE]
        values = [
            [start.workspace_id for start in some],
            [start.usages for start in some],
            [start.payments for start in some],
            [start.balance for start in some],
            [start.chain for start in some],
        ]
        yield from conn.execute(_COMPARE, values, prepare=False).fetchall()
