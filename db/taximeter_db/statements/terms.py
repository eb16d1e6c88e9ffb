"""What a statement is: the month that it covers, and its lines."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

import msgspec

from taximeter_db import money
from taximeter_db.errors import SettingsError

UTC: Final = "UTC"
"""The zone of a workspace that has set none."""
LINES_MAX: Final = 2_000
"""Tools, models or users that a statement names; what the others cost stands in one line."""
MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_MONTH: Final = re.compile(r"(20[0-9]{2})-(0[1-9]|1[0-2])", re.ASCII)


class Kind(msgspec.Struct, frozen=True):
    """The payments of one kind. `amount` in picodollars, signed."""

    kind: str
    count: int
    amount: int


class Line(msgspec.Struct, frozen=True):
    """What a tool, model or user cost, in picodollars.

    `name` is None for usages that name none, and then `names` is 0; or for the names beyond `LINES_MAX`, which it counts.
    """

    name: str | None
    usages: int
    cost: int
    names: int = 1


class Lines(msgspec.Struct, frozen=True):
    """Payments by kind; usage by tool, by model and by user, each the whole usage, most expensive first."""

    kinds: tuple[Kind, ...] = ()
    tools: tuple[Line, ...] = ()
    models: tuple[Line, ...] = ()
    users: tuple[Line, ...] = ()


class Period(msgspec.Struct, frozen=True):
    """A month of a workspace: the `number`-th, from `starts_at` up to `ends_at`. `month` is its first day in `zone`."""

    number: int
    month: dt.date
    zone: str
    starts_at: dt.datetime
    ends_at: dt.datetime

    @property
    def name(self) -> str:
        """``2026-11``."""
        return f"{self.month:%Y-%m}"


class Statement(msgspec.Struct, frozen=True):
    """A month's account; amounts in picodollars. `closed_at` is None while the month runs: then it is not final.

    opening + payments - usage = closing. The numbers of usages and payments that it covers are from first to last; last is
    first - 1 where there was none.
    """

    workspace_id: str
    period: Period
    opening: int
    payments: int
    usage: int
    closing: int
    usage_first: int
    usage_last: int
    payment_first: int
    payment_last: int
    lines: Lines
    closed_at: dt.datetime | None = None

    @property
    def usages(self) -> int:
        """How many usages it covers."""
        return self.usage_last - self.usage_first + 1

    @property
    def payment_count(self) -> int:
        """How many payments it covers."""
        return self.payment_last - self.payment_first + 1

    @property
    def title(self) -> str:
        """``acme-2026-11-3``: workspace, month and number, which no two closed statements share."""
        return f"{self.workspace_id}-{self.period.name}-{self.period.number}"


def parse_month(text: str) -> dt.date:
    """Read ``2026-11`` as its first day.

    Raises:
        SettingsError: It is not a month.
    """
    found = _MONTH.fullmatch(text)
    if found is None:
        raise SettingsError(f"{text[:40]!r} is not a month. Write year and month, such as 2026-11.")
    return dt.date(int(found[1]), int(found[2]), 1)


def following(month: dt.date) -> dt.date:
    """The first day of the month after."""
    return dt.date(month.year + month.month // 12, month.month % 12 + 1, 1)


def _line(line: Line) -> list[object]:
    return [line.name, line.usages, money.format_usd(line.cost), line.names]


def to_json(lines: Lines) -> dict[str, object]:
    """The lines as they are stored: amounts as decimal texts."""
    return {
        "kinds": [[one.kind, one.count, money.format_usd(one.amount)] for one in lines.kinds],
        **{name: [_line(one) for one in getattr(lines, name)] for name in ("tools", "models", "users")},
    }


def from_json(stored: dict[str, list[list[object]]]) -> Lines:
    """The lines as they were stored."""

    def lines(name: str) -> tuple[Line, ...]:
        return tuple(
            msgspec.convert([name_, usages, money.parse_usd(str(cost)), names], _Row).line()
            for name_, usages, cost, names in stored[name]
        )

    kinds = tuple(
        Kind(str(kind), int(str(count)), money.parse_usd(str(amount))) for kind, count, amount in stored["kinds"]
    )
    return Lines(kinds, lines("tools"), lines("models"), lines("users"))


class _Row(msgspec.Struct, array_like=True, frozen=True):
    name: str | None
    usages: int
    cost: int
    names: int

    def line(self) -> Line:
        return Line(self.name, self.usages, self.cost, self.names)
