"""Rows of the usage log: as COPY takes them, and as the chain takes them in.

The chain's digest is over what the row says of the event, in the form of ``taximeter.usage_content`` (a record in
PostgreSQL's binary format), so that `verify` can make the same bytes from the table alone. A usage without the labels of
the last generations is a record of fewer columns, the one that it was before these existed.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from taximeter_db.ledger import binary_rows, columns
from taximeter_db.ledger.events import Usage

_quantities_json = msgspec.json.Encoder(decimal_format="number").encode
_sorted_json = msgspec.json.Encoder(order="sorted").encode
_COLUMNS: Final = len(columns.KINDS)
_BIGINT, _TIMESTAMPTZ, _UUID, _NUMERIC, _TEXT, _JSON = (
    struct.pack(">i", oid) for oid in (20, 1184, 2950, 1700, 25, 114)
)
_pack_head = struct.Struct(">hiqiqiqi").pack
_pack_head_linked = struct.Struct(">hiqiqiqi32s").pack
_pack_tail_head = struct.Struct(">iqiqi").pack
# a record's number of columns, then for each its type, length and value
_pack_content_head = struct.Struct(">i4siq4siq4si").pack
_CONTENT_COLUMNS: Final = len(columns.CHAINED) - len(columns.LABELS)

_NO_LABELS: Final = binary_rows.NULL * len(columns.LABELS)
_ENDS: Final = tuple(itertools.accumulate(map(len, columns.LABEL_GENERATIONS)))
_HASHED: Final = (0, *(next(end for end in _ENDS if end > at) for at in range(len(columns.LABELS))))
"""By the number of labels up to the last one that a usage has: how many are hashed."""
_LABELS_CONTENT: Final = [
    part for kind in columns.LABELS.values() for part in ({"text": _TEXT, "json": _JSON}[kind], binary_rows.NULL)
]
"""All labels as a content holds them: of each its type, then its value."""
_COLUMN_COUNTS: Final = tuple(struct.pack(">i", _CONTENT_COLUMNS + hashed) for hashed in _HASHED)

Names = tuple[str, str | None, str | None]
_NAMES_CACHED_MAX: Final = 10_000
_names: dict[Names, tuple[bytes, bytes]] = {}


def _json_or_null(value: dict[str, str] | None) -> bytes:
    return binary_rows.NULL if value is None else binary_rows.prefixed(_sorted_json(value))


_PACKERS: Final[dict[str, Callable[[Any], bytes]]] = {"text": binary_rows.text_or_null, "json": _json_or_null}
_PACK_LABELS: Final = tuple(_PACKERS[kind] for kind in columns.LABELS.values())


class Packed(msgspec.Struct):
    """A batch as far as it is known before its balances are locked.

    `tails` are the ends of the COPY rows, one a usage; `digests` the digest of each workspace's usages.
    """

    tails: list[bytes]
    digests: dict[str, bytes]


def pack(usages: Sequence[Usage]) -> Packed:
    """Pack usages, in the order in which they will be numbered."""
    tails: list[bytes] = []
    contents: dict[str, list[bytes]] = {}
    # By price version and time: a burst shares its milliseconds.
    heads: dict[tuple[int, int], tuple[bytes, bytes]] = {}
    numeric, text, prefixed, join = binary_rows.numeric, binary_rows.text, binary_rows.prefixed, b"".join
    for usage in usages:
        what = (usage.tool, usage.provider, usage.model)
        names, names_content = _names.get(what) or _remember(what)
        when = (usage.price_version, usage.occurred_at)
        head, head_content = heads.get(when) or heads.setdefault(when, _pack_heads(*when))
        fingerprint, cost, event_id = usage.fingerprint, numeric(usage.cost), text(usage.event_id)
        quantities = prefixed(_quantities_json(usage.quantities))
        if usage.labels is None:
            labels, last_content = _NO_LABELS, quantities
        else:
            labels, columns_count, labels_content = _pack_labels(usage.labels)
            head_content, last_content = columns_count + head_content[4:], quantities + labels_content
        tails.append(join((head, fingerprint, cost, names, event_id, quantities, labels)))
        content = (head_content, fingerprint, _NUMERIC, cost, names_content, event_id, _JSON, last_content)
        of_workspace = contents.get(usage.workspace_id)
        if of_workspace is None:
            contents[usage.workspace_id] = [text(usage.workspace_id), *content]
        else:
            of_workspace += content
    return Packed(tails, {name: hashlib.sha256(join(content)).digest() for name, content in contents.items()})


def _pack_heads(version: int, occurred_at: int) -> tuple[bytes, bytes]:
    """Price version, time and the fingerprint's length, as the row and as its content begin with them."""
    at = binary_rows.time(occurred_at)
    return (
        _pack_tail_head(8, version, 8, at, 16),
        _pack_content_head(_CONTENT_COLUMNS, _BIGINT, 8, version, _TIMESTAMPTZ, 8, at, _UUID, 16),
    )


def _pack_labels(labels: columns.Labels) -> tuple[bytes, bytes, bytes]:
    """Labels for the row; the number of columns of a content with these labels, and the columns that end it."""
    packed = [
        pack_label(label) for pack_label, label in zip(_PACK_LABELS, msgspec.structs.astuple(labels), strict=True)
    ]
    count = len(packed)
    while count and packed[count - 1] == binary_rows.NULL:
        count -= 1
    content = _LABELS_CONTENT.copy()
    content[1::2] = packed
    return b"".join(packed), _COLUMN_COUNTS[count], b"".join(content[: 2 * _HASHED[count]])


def _remember(what: Names) -> tuple[bytes, bytes]:
    """Packed tool, provider and model; few combinations make up nearly all of the traffic."""
    if len(_names) >= _NAMES_CACHED_MAX:
        _names.clear()
    parts = [binary_rows.text_or_null(name) for name in what]
    packed = _names[what] = (b"".join(parts), b"".join(_TEXT + part for part in parts) + _TEXT)
    return packed


def head(seq: int, entry: int, recorded_at: int) -> bytes:
    """The start of a row of `copy_usages.sql`, before its balance; the time as of `rows.time`."""
    return _pack_head(_COLUMNS, 8, seq, 8, entry, 8, recorded_at, -1)


def head_linked(seq: int, entry: int, recorded_at: int, link: bytes) -> bytes:
    """The same for the last row of a workspace's batch, which holds the link (32 bytes)."""
    return _pack_head_linked(_COLUMNS, 8, seq, 8, entry, 8, recorded_at, 32, link)
