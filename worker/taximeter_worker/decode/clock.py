"""RFC 3339 times to integer microseconds since the Unix epoch, UTC."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

from taximeter_worker.decode.result import EventRejectedError

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


# Both halves of a time repeat from event to event: the second within a burst, the rest at millisecond precision.
_starts: dict[str, int] = {}
_ends: dict[str, int] = {}
_REMEMBERED_MAX: Final = 4096


def micros(text: str) -> int:
    """Read a time exactly. Digits beyond the microsecond are cut off; a leap second is the end of its minute.

    Raises:
        ValueError: Not RFC 3339, or not in the years 1 to 9999 UTC.
    """
    try:
        return _starts[text[:_START_LENGTH]] + _ends[text[_START_LENGTH:]]
    except KeyError:
        return _read(text)


def _read(text: str) -> int:
    start, end = _START.fullmatch(text[:_START_LENGTH]), _END.fullmatch(text[_START_LENGTH:])
    if start is None or end is None:
        raise ValueError
    year, month, day, hour, minute, second = map(int, start.groups())
    if hour > 23 or minute > 59 or second > 60:
        raise ValueError
    days = dt.date(year, month, day).toordinal() - _EPOCH_DAY
    whole = days * _DAY + ((hour * 60 + minute) * 60 + second) * SECOND
    fraction, offset = _fraction_and_offset(end)
    if second == 60:
        # It exists at the end of a UTC day only, and becomes that day's last microsecond.
        if (whole - offset) % _DAY:
            raise ValueError
        return whole - offset - 1
    moment = whole + fraction - offset
    if not _FIRST <= moment < _LAST:
        raise ValueError
    if 1 < year < dt.MAXYEAR:  # there every half goes with every other
        for remembered, part, value in (
            (_starts, start[0], whole),
            (_ends, end[0], fraction - offset),
        ):
            if len(remembered) >= _REMEMBERED_MAX:
                remembered.clear()
            remembered[part] = value
    return moment


def _fraction_and_offset(end: re.Match[str]) -> tuple[int, int]:
    fraction, sign, hours, minutes = end.groups()
    micro = int(fraction[:6].ljust(6, "0")) if fraction else 0
    if not sign:
        return micro, 0
    if int(hours) > 23 or int(minutes) > 59:
        raise ValueError
    offset = (int(hours) * 60 + int(minutes)) * _MINUTE
    return micro, -offset if sign == "-" else offset


def event_time(value: object) -> int:
    """The ``time`` of an event as microseconds.

    Raises:
        EventRejectedError: ``timezone_required`` or ``bad_time``, with a hint at what was probably meant.
    """
    if type(value) is not str:
        raise EventRejectedError("bad_time", _hint_for_other_types(value))
    try:
        return micros(value)
    except ValueError:
        if _LIKE_A_TIME.fullmatch(value):
            raise EventRejectedError("timezone_required", f"time has no offset from UTC. {_SHAPE}") from None
        raise EventRejectedError("bad_time", _hint(value)) from None


def moment(value: object, path: str) -> str:
    """Another time of an event, in UTC as ``2026-12-31T22:00:00+00:00``: the same moment is the same text.

    Raises:
        EventRejectedError: ``timezone_required`` or ``bad_time``; the sentence names `path`.
    """
    try:
        at = event_time(value)
    except EventRejectedError as error:
        raise EventRejectedError(error.reason, error.detail.replace("time", path, 1)) from None
    return (dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=at)).isoformat()


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
