"""What a budget says: how much, of what, in which period."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from psycopg import Connection

from taximeter_db.errors import SettingsError
from taximeter_db.money import format_usd
from taximeter_db.sql import statements

PERIODS: Final = ("day", "week", "month", "total")
HOURS: Final = "hours"
"""The period of budgets over rolling hours."""
HOURS_MAX: Final = 744
THRESHOLDS: Final = (50, 80, 100)
"""In percent of the limit."""
THRESHOLDS_MAX: Final = 10
NAME_MAX: Final = 64
TEXT_MAX: Final = 128
_TAG: Final = re.compile(r"([a-z0-9_.\-]{1,32})=(.{1,64})", re.DOTALL)
_HOURS: Final = re.compile(r"hours:([1-9][0-9]{0,2})", re.ASCII)
_SQL = statements("budgets")


class Terms(msgspec.Struct, frozen=True):
    """A budget as it is set. `limit` is in picodollars; `hours` is 0 unless the period is rolling hours.

    A usage counts where it bears every one of `user`, `tool`, `model` and `tag` (key and value) that is given.
    """

    workspace_id: str
    name: str
    limit: int
    period: str
    hours: int = 0
    zone: str = "UTC"
    user: str | None = None
    tool: str | None = None
    model: str | None = None
    tag: tuple[str, str] | None = None
    hard: bool = True
    thresholds: tuple[int, ...] = THRESHOLDS

    @property
    def selector(self) -> str:
        """The one of its conditions by which booking finds it; empty where it has none."""
        if self.user is not None:
            return f"user:{self.user}"
        if self.tag is not None:
            return f"tag:{'='.join(self.tag)}"
        if self.tool is not None:
            return f"tool:{self.tool}"
        return "" if self.model is None else f"model:{self.model}"

    @property
    def period_text(self) -> str:
        """The period as it is set: ``day``, ``hours:24``."""
        return f"{HOURS}:{self.hours}" if self.hours else self.period

    def described(self) -> str:
        """For the log of changes."""
        parts = [f"{format_usd(self.limit)} USD {'hard' if self.hard else 'soft'}, {self.period_text}"]
        if self.period in PERIODS and self.period != "total":
            parts.append(self.zone)
        given = {"user": self.user, "tool": self.tool, "model": self.model}
        parts += [f"{key} {value}" for key, value in given.items() if value is not None]
        if self.tag is not None:
            parts.append(f"tag {'='.join(self.tag)}")
        return ", ".join([*parts, f"thresholds {' '.join(map(str, self.thresholds))}"])

    def parameters(self) -> dict[str, Any]:
        """What the statements of ``budgets.sql`` take of it."""
        tag, value = self.tag or (None, None)
        names = {"user": self.user, "tool": self.tool, "model": self.model, "tag": tag, "tag_value": value}
        period = {"period": self.period, "hours": self.hours, "zone": self.zone}
        return {"workspace_id": self.workspace_id, "name": self.name, **period, **names}


def selectors(user: str | None, tool: str, model: str | None, tags: Mapping[str, str] | None) -> list[str]:
    """Under which selectors a usage's budgets are found."""
    found = ["", f"tool:{tool}"]
    if user is not None:
        found.append(f"user:{user}")
    if model is not None:
        found.append(f"model:{model}")
    if tags:
        found += [f"tag:{key}={value}" for key, value in tags.items()]
    return found


def parse_period(text: str) -> tuple[str, int]:
    """Read ``day``, ``week``, ``month``, ``total`` or ``hours:N`` as period and hours.

    Raises:
        SettingsError: It is none of these.
    """
    if text in PERIODS:
        return text, 0
    rolling = _HOURS.fullmatch(text)
    if rolling and int(rolling[1]) <= HOURS_MAX:
        return HOURS, int(rolling[1])
    raise SettingsError(
        f"{text[:40]!r} is not a period. Give {', '.join(PERIODS)} or hours:N, N from 1 to {HOURS_MAX}."
    )


def parse_tag(text: str) -> tuple[str, str]:
    """Read ``KEY=VALUE``.

    Raises:
        SettingsError: No event could bear such a tag.
    """
    tag = _TAG.fullmatch(text)
    if tag is None or not tag[2].isprintable():
        raise SettingsError(
            f"{text[:120]!r} is not a tag. Write KEY=VALUE: a key of 1 to 32 of a-z 0-9 _ . - and a value of 1 to 64 characters."
        )
    return tag[1], tag[2]


def check(conn: Connection[Any], terms: Terms) -> None:
    """Refuse terms that make no sense.

    Raises:
        SettingsError: They do not; the sentence says what is wrong.
    """
    _check_text("name", terms.name, NAME_MAX)
    for field, text in (("user", terms.user), ("tool", terms.tool), ("model", terms.model)):
        if text is not None:
            _check_text(field, text, TEXT_MAX)
    if terms.limit < 0:
        raise SettingsError("The limit of a budget must not be below 0.")
    percents = terms.thresholds
    if not 1 <= len(percents) <= THRESHOLDS_MAX or len(set(percents)) < len(percents):
        raise SettingsError(f"A budget has 1 to {THRESHOLDS_MAX} thresholds, each once.")
    if not all(1 <= percent <= 1_000 for percent in percents):
        raise SettingsError("A threshold is a whole number of percent from 1 to 1000.")
    if conn.execute(_SQL["zone"], {"zone": terms.zone}).fetchone() is None:
        raise SettingsError(f"{terms.zone[:64]!r} is not a time zone. Give a name such as UTC or Europe/Berlin.")


def is_name(text: str) -> bool:
    """Whether a budget can have this name."""
    return _is_text(text, NAME_MAX)


def _is_text(text: str, longest: int) -> bool:
    return 1 <= len(text) <= longest and text.isprintable() and text == text.strip()


def _check_text(field: str, text: str, longest: int) -> None:
    if not _is_text(text, longest):
        raise SettingsError(
            f"The {field} of a budget has 1 to {longest} printable characters, none of them a blank at an end."
        )
