"""PostgreSQL's binary formats, as far as the booking path needs them.

psycopg can build all of this from Python objects; packing it here takes a third of the time, and it is the hottest
code of the worker. Formats: PostgreSQL documentation, "COPY / Binary Format", and the types' ``*_recv`` functions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final

from psycopg import Connection
from psycopg.adapt import Dumper
from psycopg.pq import Format

COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
COPY_TRAILER: Final = b"\xff\xff"
NULL: Final = b"\xff\xff\xff\xff"
_UNIX_TO_PG_EPOCH_MICROSECONDS: Final = 946_684_800_000_000  # 1970-01-01 to 2000-01-01

_UUID_OID, _TEXT_OID, _NUMERIC_OID, _BIGINT_OID, _BYTEA_OID = 2950, 25, 1700, 20, 17
UUID_LENGTH: Final = struct.pack(">i", 16)
KEY_HEAD: Final = struct.pack(">h", 3) + UUID_LENGTH
"""The start of a row of `copy_keys.sql`."""
_pack_length = struct.Struct(">i").pack
_pack_bigint = struct.Struct(">iq").pack
_pack_array = struct.Struct(">iiIii").pack
# of the first 256 lengths: to look one up costs a third of packing it
_LENGTHS: Final = [_pack_length(length) for length in range(256)]
_SMALL_BIGINTS: Final = [_pack_bigint(8, value) for value in range(256)]
_POSITIVE, _NEGATIVE = 0x0000, 0x4000
_pack_digits = struct.Struct(">HHHH").pack


def _numeric_head(begin: int, end: int, sign: int) -> bytes:
    """All of a numeric below 10,000 USD but its digits to base 10,000, of which those from `begin` to `end` are kept."""
    # length, digits, weight, sign, display scale
    return struct.pack(">iHhHH", 8 + 2 * max(0, end - begin), max(0, end - begin), -begin, sign, 12)


_POSITIVE_HEADS, _NEGATIVE_HEADS = (
    [[_numeric_head(begin, end, sign) for end in range(5)] for begin in range(4)] for sign in (_POSITIVE, _NEGATIVE)
)
_ZERO = _numeric_head(0, 0, _POSITIVE)
_pack_payload_head = struct.Struct(">hiqiqih").pack
_pack_four, _pack_five = struct.Struct(">iHhHH4H").pack, struct.Struct(">iHhHH5H").pack
_SMALL_NUMERIC_LIMIT = 10**16
_MEDIUM_NUMERIC_LIMIT = 10**20


def numeric(pico: int) -> bytes:
    """A length-prefixed binary ``numeric`` of scale 12 from picodollars, in the very bytes in which PostgreSQL sends it.

    That is, without zero digits at either end: what is hashed here must be what ``numeric_send`` gives to verify.
    """
    sign = _POSITIVE
    if pico < 0:
        sign, pico = _NEGATIVE, -pico
    if pico < _SMALL_NUMERIC_LIMIT:
        if not pico:
            return _ZERO
        high, low = divmod(pico, 100_000_000)
        one, two = divmod(high, 10_000)
        three, four = divmod(low, 10_000)
        begin = 0 if one else 1 if two else 2 if three else 3
        end = 4 if four else 3 if three else 2 if two else 1
        heads = _NEGATIVE_HEADS if sign else _POSITIVE_HEADS
        return heads[begin][end] + _pack_digits(one, two, three, four)[2 * begin : 2 * end]
    large = []
    while pico:
        pico, digit = divmod(pico, 10_000)
        large.append(digit)
    weight = len(large) - 4  # three of the digits to base 10,000 stand behind the point
    large.reverse()
    while not large[-1]:
        del large[-1]
    count = len(large)
    return struct.pack(f">iHhHH{count}H", 8 + 2 * count, count, weight, sign, 12, *large)


def loose_numeric(pico: int) -> bytes:
    """The same value with zero digits left in, which PostgreSQL strips as it reads: less than half the time of `numeric`.

    For what is stored and not hashed. Balances of up to 10^8 USD are packed whole.
    """
    sign = _POSITIVE
    if pico < 0:
        sign, pico = _NEGATIVE, -pico
    if pico < _SMALL_NUMERIC_LIMIT:
        high, low = divmod(pico, 100_000_000)
        return _pack_four(16, 4, 0, sign, 12, high // 10_000, high % 10_000, low // 10_000, low % 10_000)
    if pico < _MEDIUM_NUMERIC_LIMIT:
        high, low = divmod(pico, 100_000_000)
        top, high = divmod(high, 100_000_000)
        return _pack_five(18, 5, 1, sign, 12, top, high // 10_000, high % 10_000, low // 10_000, low % 10_000)
    return numeric(-pico if sign else pico)


def text(value: str) -> bytes:
    """A length-prefixed ``text``."""
    data = value.encode()
    length = len(data)
    return (_LENGTHS[length] if length < 256 else _pack_length(length)) + data


def text_or_null(value: str | None) -> bytes:
    """A length-prefixed ``text``, or NULL."""
    return NULL if value is None else text(value)


def prefixed(data: bytes) -> bytes:
    """Any binary value with its length before it."""
    length = len(data)
    return (_LENGTHS[length] if length < 256 else _pack_length(length)) + data


def time(micros: int) -> int:
    """A moment as a binary ``timestamptz`` counts it, from microseconds since the Unix epoch."""
    return micros - _UNIX_TO_PG_EPOCH_MICROSECONDS


def micros(sent: bytes) -> int:
    """The inverse, from the eight bytes that ``timestamptz_send`` makes: for PostgreSQL the cheapest way to tell a time."""
    return int.from_bytes(sent, "big", signed=True) + _UNIX_TO_PG_EPOCH_MICROSECONDS


def payload_head(seq: int, recorded_at: int, codec: int) -> bytes:
    """The fixed-width start of a row of `copy_payloads.sql`; the time as of `time`."""
    return _pack_payload_head(5, 8, seq, 8, recorded_at, 2, codec)


class Binary:
    """A parameter, mostly a one-dimensional array, already in PostgreSQL's binary format."""

    __slots__ = ("data",)
    oid = 0
    """Its type, set by the subclasses."""

    def __init__(self, data: bytes) -> None:
        self.data = data


def _array(element_oid: int, count: int, elements: bytes) -> bytes:
    if not count:
        return struct.pack(">iiI", 0, 0, element_oid)
    return _pack_array(1, 0, element_oid, count, 1) + elements


class Numeric(Binary):
    """A single ``numeric`` from picodollars."""

    __slots__ = ()
    oid = _NUMERIC_OID

    def __init__(self, pico: int) -> None:
        super().__init__(numeric(pico)[4:])


class UuidArray(Binary):
    """``uuid[]`` from 16-byte strings."""

    __slots__ = ()
    oid = 2951

    def __init__(self, values: Sequence[bytes]) -> None:
        super().__init__(_array(_UUID_OID, len(values), UUID_LENGTH + UUID_LENGTH.join(values) if values else b""))


class TextArray(Binary):
    """``text[]`` from length-prefixed elements, see `text`."""

    __slots__ = ()
    oid = 1009

    def __init__(self, elements: Sequence[bytes]) -> None:
        super().__init__(_array(_TEXT_OID, len(elements), b"".join(elements)))


class NumericArray(Binary):
    """``numeric[]`` from picodollars."""

    __slots__ = ()
    oid = 1231

    def __init__(self, values: Sequence[int]) -> None:
        super().__init__(_array(_NUMERIC_OID, len(values), b"".join(map(loose_numeric, values))))


class ByteaArray(Binary):
    """``bytea[]`` from byte strings."""

    __slots__ = ()
    oid = 1001

    def __init__(self, values: Sequence[bytes]) -> None:
        super().__init__(_array(_BYTEA_OID, len(values), b"".join(map(prefixed, values))))


class BigintArray(Binary):
    """``bigint[]`` from integers."""

    __slots__ = ()
    oid = 1016

    def __init__(self, values: Iterable[int]) -> None:
        packed = [_SMALL_BIGINTS[value] if 0 <= value < 256 else _pack_bigint(8, value) for value in values]
        super().__init__(_array(_BIGINT_OID, len(packed), b"".join(packed)))


class _BinaryDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Binary) -> bytes:
        return obj.data


def register(conn: Connection[Any]) -> None:
    """Teach a connection to send the parameters of this module as they are."""
    for kind in (Numeric, UuidArray, TextArray, NumericArray, BigintArray, ByteaArray):
        dumper = type(f"{kind.__name__}Dumper", (_BinaryDumper,), {"oid": kind.oid})
        conn.adapters.register_dumper(kind, dumper)
