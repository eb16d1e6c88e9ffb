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
# length, digits, weight, sign, display scale, then one to four digits to base 10,000: below 10,000 USD with 12 decimals
_pack_small_numeric = [struct.Struct(">iHhHH" + "H" * count).pack for count in range(5)]
_pack_payload_head = struct.Struct(">hiqiqih").pack
_pack_four, _pack_five = struct.Struct(">iHhHH4H").pack, struct.Struct(">iHhHH5H").pack
_SMALL_NUMERIC_LIMIT = 10**16
_MEDIUM_NUMERIC_LIMIT = 10**20
_POSITIVE, _NEGATIVE = 0x0000, 0x4000


def numeric(pico: int) -> bytes:
    """A length-prefixed binary ``numeric`` of scale 12 from picodollars, in the very bytes in which PostgreSQL sends it.

    That is, without zero digits at either end: what is hashed here must be what ``numeric_send`` gives to verify.
    """
    sign = _POSITIVE
    if pico < 0:
        sign, pico = _NEGATIVE, -pico
    if pico < _SMALL_NUMERIC_LIMIT:
        high, low = divmod(pico, 100_000_000)
        digits = (high // 10_000, high % 10_000, low // 10_000, low % 10_000)
        begin = 0 if digits[0] else 1 if digits[1] else 2 if digits[2] else 3
        end = 4 if digits[3] else 3 if digits[2] else 2 if digits[1] else 1
        if not pico:
            begin = end = 0
        count = end - begin
        return _pack_small_numeric[count](8 + 2 * count, count, -begin, sign, 12, *digits[begin:end])
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
    return _pack_length(len(data)) + data


def text_or_null(value: str | None) -> bytes:
    """A length-prefixed ``text``, or NULL."""
    return NULL if value is None else text(value)


def prefixed(data: bytes) -> bytes:
    """Any binary value with its length before it."""
    return _pack_length(len(data)) + data


def time(micros: int) -> int:
    """A moment as a binary ``timestamptz`` counts it, from microseconds since the Unix epoch."""
    return micros - _UNIX_TO_PG_EPOCH_MICROSECONDS


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
        packed = [_pack_bigint(8, value) for value in values]
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
