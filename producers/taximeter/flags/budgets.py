"""Hard budgets that are used up, as a workspace's flag names them, and which calls they concern."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec


class Caller(NamedTuple):
    """What is known of a call, as its usage event will say it."""

    user: str | None = None
    tool: str | None = None
    model: str | None = None
    tags: Mapping[str, str] | None = None


ANYONE = Caller()


class UsedUp(msgspec.Struct, frozen=True, kw_only=True):
    """A hard budget that is used up. It concerns calls that bear all of its conditions; without any, all calls.

    `limit` is in USD; `until` is when the period ends, where that is known.
    """

    name: str
    limit: str = ""
    period: str = ""
    user: str | None = None
    tool: str | None = None
    model: str | None = None
    tag: tuple[str, str] | None = None
    until: datetime | None = None

    def concerns(self, caller: Caller) -> bool:
        """Whether a call must not be made for it. What the caller does not say, no condition finds."""
        return (
            (self.user is None or self.user == caller.user)
            and (self.tool is None or self.tool == caller.tool)
            and (self.model is None or self.model == caller.model)
            and (self.tag is None or (caller.tags or {}).get(self.tag[0]) == self.tag[1])
        )


_decoder = msgspec.json.Decoder(tuple[UsedUp, ...])


def read(text: bytes | None) -> tuple[UsedUp, ...]:
    """The field ``budgets`` of a flag.

    Raises:
        msgspec.DecodeError: It is none that a worker has written.
    """
    return _decoder.decode(text) if text else ()


def concerning(budgets: Iterable[UsedUp], caller: Caller) -> UsedUp | None:
    """The first of these budgets that concerns a call."""
    for budget in budgets:
        if budget.concerns(caller):
            return budget
    return None
