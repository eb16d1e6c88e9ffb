"""RFC 3339 times to integer microseconds since the Unix epoch, UTC."""

from __future__ import annotations

import datetime as dt
import re
from functools import lru_cache
from typing import Final

from taximeter_worker.decode.base import RefusedError

SECOND: Final = 1_000_000
_MINUTE: Final = 60 * SECOND
_DAY: Final = 86_400 * SECOND
_EPOCH_DAY: Final = dt.date(1970, 1, 1).toordinal()
_FIRST: Final = (1 - _EPOCH_DAY) * _DAY
"""The beginning of year 1, before which neither Python nor a reader's calendar has a date."""
_LAST: Final = (dt.date.max.toordinal() + 1 - _EPOCH_DAY) * _DAY

_START = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})", re.ASCII)
_END = re.compile(r"(?:\.([0-9]{1,32}))?(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))", re.ASCII)
_START_LENGTH: Final = 19
_LIKE_A_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?", re.ASCII)
_SHAPE: Final = 'Write RFC 3339 with an offset, such as "2026-11-22T10:00:00.123Z" or "2026-11-22T11:00:00+01:00".'


def micros(text: str) -> int:
    """Read a time exactly. Digits beyond the microsecond are cut off; a leap second is the end of its minute.

    Raises:
        ValueError: Not RFC 3339, or not in the years 1 to 9999 UTC.
    """
    # Both halves repeat from event to event: the second within a burst, the rest at millisecond precision.
    second, leap = _start(text[:_START_LENGTH])
    moment = second + (_end(text[_START_LENGTH:]) if not leap else _leap_end(second, text[_START_LENGTH:]))
    if not _FIRST <= moment < _LAST:
        raise ValueError
    return moment


@lru_cache(maxsize=4096)
def _start(text: str) -> tuple[int, bool]:
    """Microseconds of a date and time to the second, and whether it names a leap second."""
    match = _START.fullmatch(text)
    if match is None:
        raise ValueError
    year, month, day, hour, minute, second = map(int, match.groups())
    if hour > 23 or minute > 59 or second > 60:
        raise ValueError
    days = dt.date(year, month, day).toordinal() - _EPOCH_DAY
    return days * _DAY + ((hour * 60 + minute) * 60 + second) * SECOND, second == 60


@lru_cache(maxsize=4096)
def _end(text: str) -> int:
    """Microseconds of a fraction less those of the offset behind it."""
    match = _END.fullmatch(text)
    if match is None:
        raise ValueError
    fraction, sign, hours, minutes = match.groups()
    moment = int(fraction[:6].ljust(6, "0")) if fraction else 0
    if sign:
        if int(hours) > 23 or int(minutes) > 59:
            raise ValueError
        offset = (int(hours) * 60 + int(minutes)) * _MINUTE
        moment += offset if sign == "-" else -offset
    return moment


def _leap_end(second: int, text: str) -> int:
    """As `_end`, for a leap second: it exists at the end of a UTC day only, and becomes its last microsecond."""
    match = _END.fullmatch(text)
    if match is None:
        raise ValueError
    fraction = _end("." + match[1] + "Z") if match[1] else 0
    offset = _end(text) - fraction
    if (second + offset) % _DAY:
        raise ValueError
    return offset - 1


def event_time(value: object) -> int:
    """The ``time`` of an event as microseconds.

    Raises:
        RefusedError: ``timezone_required`` or ``bad_time``, with a hint at what was probably meant.
    """
    if type(value) is not str:
        raise RefusedError("bad_time", _hint_for_other_types(value))
    try:
        return micros(value)
    except ValueError:
        if _LIKE_A_TIME.fullmatch(value):
            raise RefusedError("timezone_required", f"time has no offset from UTC. {_SHAPE}") from None
        raise RefusedError("bad_time", _hint(value)) from None


def _hint_for_other_types(value: object) -> str:
    if value is None:
        return f"time is missing: it says when the usage happened. {_SHAPE}"
    if isinstance(value, str):  # a number, as it was written
        return f"time is a number, perhaps seconds or milliseconds since 1970. {_SHAPE}"
    return f"time must be a text. {_SHAPE}"


def _hint(text: str) -> str:
    stripped = text.strip()
    if stripped.lstrip("+-").isdigit():
        return f"time holds only digits, perhaps seconds or milliseconds since 1970. {_SHAPE}"
    if "infinity" in stripped.lower():
        return f"time must be a moment, not infinity. {_SHAPE}"
    if re.match(r"[+-]?[0-9]{5,}-|-|0000-", stripped) or stripped.upper().endswith("BC"):
        return f"time must lie in the years 1 to 9999. {_SHAPE}"
    return f"time cannot be read, or names a date or hour that does not exist. {_SHAPE}"
