"""Times and durations as a person reads them, in the viewer's zone."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from functools import lru_cache
from urllib.parse import unquote

from markupsafe import Markup
from starlette.requests import Request

from taximeter_dashboard.errors import ProblemError

ZONE_COOKIE = "taximeter_zone"
_MONTHS = "January February March April May June July August September October November December".split()  # noqa: SIM905
_AREAS = frozenset(
    ("Africa", "America", "Antarctica", "Arctic", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific")
)
_UNITS = ((365 * 86400, "year"), (30 * 86400, "month"), (86400, "day"), (3600, "hour"), (60, "minute"))


@lru_cache(maxsize=256)
def zone(name: str | None) -> zoneinfo.ZoneInfo:
    """A zone by its IANA name, UTC where there is none of that name."""
    try:
        return zoneinfo.ZoneInfo((name or "UTC")[:64])
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return zoneinfo.ZoneInfo("UTC")


def zone_named(name: str) -> zoneinfo.ZoneInfo:
    """A zone by its IANA name.

    Raises:
        ProblemError: 422, there is none of that name.
    """
    found = zone(name)
    if found.key != name:
        raise ProblemError("zone: an IANA name such as Europe/Riga is needed.", status=422, title="Not valid")
    return found


def zone_of(request: Request) -> zoneinfo.ZoneInfo:
    """The viewer's zone, from the cookie that the page's script sets."""
    return zone(unquote(request.cookies.get(ZONE_COOKIE, "UTC")))


def now() -> dt.datetime:
    """This moment, in UTC."""
    return dt.datetime.now(dt.UTC)


@lru_cache(maxsize=1)
def zones() -> list[str]:
    """The names to choose from: UTC, and those of places."""
    found = {name for name in zoneinfo.available_timezones() if name.partition("/")[0] in _AREAS and "/" in name}
    return ["UTC", *sorted(found)]


def local(moment: dt.datetime, where: zoneinfo.ZoneInfo) -> dt.datetime:
    """A moment by the clock of a zone; in UTC where that clock has no such time.

    Producers' zero times lie in the year 1, in which half of the world is still in the year before.
    """
    try:
        return moment.astimezone(where)
    except (OverflowError, ValueError):
        return moment.astimezone(dt.UTC)


def zone_label(where: zoneinfo.ZoneInfo, now: dt.datetime) -> str:
    """``Europe/Riga, UTC+2``."""
    if where.key == "UTC":
        return "UTC"
    offset = now.astimezone(where).utcoffset() or dt.timedelta()
    minutes = int(offset.total_seconds()) // 60
    hours, rest = divmod(abs(minutes), 60)
    sign = "\N{MINUS SIGN}" if minutes < 0 else "+"
    return f"{where.key}, UTC{sign}{hours}" + (f":{rest:02d}" if rest else "")


def utc(moment: dt.datetime) -> str:
    """``2026-11-22 10:00:00.123 UTC``, without idle digits."""
    text = moment.astimezone(dt.UTC).replace(tzinfo=None).isoformat(" ", "microseconds").rstrip("0").rstrip(".")
    return f"{text} UTC"


def _iso(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


def short(moment: dt.datetime, where: zoneinfo.ZoneInfo, now: dt.datetime) -> Markup:
    """Day and time of a row; the year where it is not this one. UTC on hover."""
    at = local(moment, where)
    year = f" {at.year}" if at.year != local(now, where).year else ""
    text = f"{at.day} {_MONTHS[at.month - 1][:3]}{year}, {at:%H:%M:%S}"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(_iso(moment), utc(moment), text)


def full(moment: dt.datetime, where: zoneinfo.ZoneInfo) -> Markup:
    """Everything: day, time, zone, and UTC where that is another."""
    at = local(moment, where)
    text = f"{day(moment, where)} {at.year}, {at:%H:%M:%S} {at.tzname()}"
    also = Markup("") if where.key == "UTC" else Markup(' <span class="whole">({})</span>').format(utc(moment))
    return Markup('<time datetime="{}">{}{}</time>').format(_iso(moment), text, also)


def day(moment: dt.datetime, where: zoneinfo.ZoneInfo) -> str:
    """``19 December``."""
    at = local(moment, where)
    return f"{at.day} {_MONTHS[at.month - 1]}"


def date(moment: dt.datetime, where: zoneinfo.ZoneInfo, now: dt.datetime) -> str:
    """``3 Nov``, with the year where it is not this one."""
    at = local(moment, where)
    year = f" {at.year}" if at.year != local(now, where).year else ""
    return f"{at.day} {_MONTHS[at.month - 1][:3]}{year}"


def clock(moment: dt.datetime, where: zoneinfo.ZoneInfo, now: dt.datetime) -> str:
    """``14:32:07``, with the day where it is not today."""
    at = local(moment, where)
    if at.date() == local(now, where).date():
        return f"{at:%H:%M:%S}"
    year = f" {at.year}" if at.year != local(now, where).year else ""
    return f"{day(moment, where)}{year}, {at:%H:%M:%S}"


def duration(seconds: float) -> str:
    """The largest unit: ``3 hours``."""
    for size, name in _UNITS:
        count = int(seconds / size + 0.5)
        if count >= 1 and seconds >= size:
            return f"{count} {name}{'s' if count != 1 else ''}"
    return "less than a minute"
