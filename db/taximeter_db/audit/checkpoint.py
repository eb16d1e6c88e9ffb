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
from sqlalchemy import func, select

from taximeter_db import money
from taximeter_db.audit import verify_keys
from taximeter_db.audit.verify_chunks import Start
from taximeter_db.audit.verify_keys import Sums
from taximeter_db.core import Statement
from taximeter_db.errors import CheckpointError
from taximeter_db.models.ledger import Workspace
from taximeter_db.models.prices import PriceLink
from taximeter_db.sql import statement

KEY_BYTES_MIN: Final = 16
_VERSION: Final = 2
_VERSION_WITHOUT_KEYS: Final = 1
_STATES = Statement(
    select(
        Workspace.workspace_id,
        Workspace.usage_count,
        Workspace.payment_count,
        Workspace.usage_cost,
        Workspace.payment_total,
        Workspace.chain,
        Workspace.minimum_balance,
        Workspace.low_balance_threshold,
    ).order_by(Workspace.workspace_id)
)
_BOOK = Statement(select(PriceLink.revision, PriceLink.link).order_by(PriceLink.revision.desc()).limit(1))
_NOW = Statement(select(func.now()))
_COMPARE: Final = statement("compare_checkpoint")
_COMPARED_AT_ONCE: Final = 5_000
_NOT_WHOLE: Final = "The file is not a complete checkpoint of Taximeter."


class BookLink(msgspec.Struct, frozen=True):
    """The newest revision of the price book and its link, in hexadecimal; 0 and nothing of an empty book."""

    revision: int = 0
    link: str = ""


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line. `made_at` is the database's time."""

    taximeter_checkpoint: int
    made_at: dt.datetime
    workspaces: int
    keys: Sums | None = None
    """Of all idempotency keys; version 1 had none."""
    prices: BookLink | None = None
    """Where the price book stood; version 1 did not say."""


class _Seal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    hmac_sha256: str


class Limits(msgspec.Struct, frozen=True):
    """Of a workspace, in picodollars."""

    minimum: int
    low: int


class Checkpoint(msgspec.Struct, frozen=True):
    """A checkpoint whose signature was right: where each workspace stood, and its limits, by its id."""

    made_at: dt.datetime
    starts: dict[str, Start]
    limits: dict[str, Limits]
    keys: Sums | None
    prices: BookLink | None


class _Line(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A workspace. Amounts are decimal strings; version 1 had no limits."""

    workspace_id: str
    usages: int
    payments: int
    cost: str
    paid: str
    chain: str
    minimum: str | None = None
    low: str | None = None


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
            rows = _STATES.all(conn)
            header = Header(_VERSION, _NOW.scalar(conn), len(rows), verify_keys.of_keys(conn), _book_link(conn))
            lines = [msgspec.json.encode(header), *(msgspec.json.encode(_line(row)) for row in rows)]
    finally:
        conn.isolation_level, conn.read_only = before
    for line in lines:
        signature.update(line + b"\n")
        yield line + b"\n"
    yield msgspec.json.encode(_Seal(signature.hexdigest())) + b"\n"


def _book_link(conn: Connection[Any]) -> BookLink:
    row = _BOOK.first(conn)
    return BookLink() if row is None else BookLink(row[0], row[1].hex())


def read(lines: Sequence[bytes], key: bytes) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: It was not signed with this key, or is not whole.
    """
    signed = _signed(lines, key)
    try:
        header = msgspec.json.decode(signed[0], type=Header)
        read_lines = [_read_line(line) for line in signed[1:]]
        starts = [_start(line) for line in read_lines]
        limits = {line.workspace_id: limits for line in read_lines if (limits := _limits(line))}
    except (ValueError, IndexError) as error:
        raise CheckpointError(_NOT_WHOLE) from error
    if header.taximeter_checkpoint not in {_VERSION, _VERSION_WITHOUT_KEYS} or header.workspaces != len(starts):
        raise CheckpointError("The checkpoint is of another version of Taximeter, or not whole.")
    return Checkpoint(
        header.made_at, {start.workspace_id: start for start in starts}, limits, header.keys, header.prices
    )


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
            "The checkpoint was changed, or signed with another key. Use the file as it was written, and the key that signed it."
        )
    return lines[:-1]


def _line(row: Sequence[Any]) -> _Line:
    workspace_id, usages, payments, cost, paid, chain, minimum, low = row
    cost_text, paid_text, minimum_text, low_text = map(money.numeric_text, (cost, paid, minimum, low))
    return _Line(workspace_id, usages, payments, cost_text, paid_text, chain.hex(), minimum_text, low_text)


def _start(line: _Line) -> Start:
    cost, paid = money.parse_usd(line.cost), money.parse_usd(line.paid)
    return Start(line.workspace_id, line.usages, line.payments, cost, paid, bytes.fromhex(line.chain))


def _limits(line: _Line) -> Limits | None:
    if line.minimum is None or line.low is None:
        return None
    return Limits(money.parse_usd(line.minimum), money.parse_usd(line.low))


def _signature(key: bytes) -> hmac.HMAC:
    if len(key) < KEY_BYTES_MIN:
        raise CheckpointError(f"The checkpoint key must have at least {KEY_BYTES_MIN} bytes.")
    return hmac.new(key, digestmod=hashlib.sha256)


def moved(conn: Connection[Any], checkpoint: Checkpoint) -> Iterator[tuple[str, int]]:
    """Workspaces whose log up to the checkpoint is no longer the one it was made of, and the entry of the checkpoint."""
    starts = list(checkpoint.starts.values())
    for first in range(0, len(starts), _COMPARED_AT_ONCE):
        some = starts[first : first + _COMPARED_AT_ONCE]
        values = [
            [start.workspace_id for start in some],
            [start.usages for start in some],
            [start.payments for start in some],
            [money.numeric_text(start.balance) for start in some],
            [start.chain for start in some],
        ]
        yield from conn.execute(_COMPARE, values, prepare=False).fetchall()
