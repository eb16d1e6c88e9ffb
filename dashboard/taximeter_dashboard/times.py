"""Times and durations as a person reads them, in the viewer's zone."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from functools import lru_cache

from markupsafe import Markup

from taximeter_dashboard.errors import Problem

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
        Problem: 422, there is none of that name.
    """
    found = zone(name)
    if found.key != name:
        raise Problem("zone: an IANA name such as Europe/Riga is needed.", status=422, title="Not valid")
    return found


def now() -> dt.datetime:
    """This moment, in UTC."""
    return dt.datetime.now(dt.UTC)


@lru_cache(maxsize=1)
def zones() -> list[str]:
    """The names to choose from: UTC, and those of places."""
    found = {name for name in zoneinfo.available_timezones() if name.partition("/")[0] in _AREAS and "/" in name}
    return ["UTC", *sorted(found)]


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
    text = moment.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S.%f").rstrip("0").rstrip(".")
    return f"{text} UTC"


def _iso(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


def short(moment: dt.datetime, where: zoneinfo.ZoneInfo, now: dt.datetime) -> Markup:
    """Day and time of a row; the year where it is not this one. UTC on hover."""
    local = moment.astimezone(where)
    year = f" {local.year}" if local.year != now.astimezone(where).year else ""
    text = f"{local.day} {_MONTHS[local.month - 1][:3]}{year}, {local:%H:%M:%S}"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(_iso(moment), utc(moment), text)


def full(moment: dt.datetime, where: zoneinfo.ZoneInfo) -> Markup:
    """Everything: day, time, zone, and UTC where that is another."""
    local = moment.astimezone(where)
    text = f"{day(moment, where)} {local.year}, {local:%H:%M:%S} {'UTC' if where.key == 'UTC' else local.tzname()}"
    also = Markup("") if where.key == "UTC" else Markup(' <span class="whole">({})</span>').format(utc(moment))
    return Markup('<time datetime="{}">{}{}</time>').format(_iso(moment), text, also)


def day(moment: dt.datetime, where: zoneinfo.ZoneInfo) -> str:
    """``19 December``."""
    local = moment.astimezone(where)
    return f"{local.day} {_MONTHS[local.month - 1]}"


def date(moment: dt.datetime, where: zoneinfo.ZoneInfo, now: dt.datetime) -> str:
    """``3 Nov``, with the year where it is not this one."""
    local = moment.astimezone(where)
    year = f" {local.year}" if local.year != now.astimezone(where).year else ""
    return f"{local.day} {_MONTHS[local.month - 1][:3]}{year}"


def clock(moment: dt.datetime, where: zoneinfo.ZoneInfo, now: dt.datetime) -> str:
    """``14:32:07``, with the day where it is not today."""
    local = moment.astimezone(where)
    if local.date() == now.astimezone(where).date():
        return f"{local:%H:%M:%S}"
    year = f" {local.year}" if local.year != now.astimezone(where).year else ""
    return f"{day(moment, where)}{year}, {local:%H:%M:%S}"


def duration(seconds: float) -> str:
    """The largest unit: ``3 hours``."""
    for size, name in _UNITS:
        count = int(seconds / size + 0.5)
        if count >= 1 and seconds >= size:
            return f"{count} {name}{'s' if count != 1 else ''}"
    return "less than a minute"
