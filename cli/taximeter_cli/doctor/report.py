"""A check of the installation, and how one that cannot be made is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from taximeter_cli import guard

Server = TypeVar("Server")


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at. `advice` says how to fix what is wrong, and is empty where nothing is."""

    name: str
    ok: bool
    detail: str
    advice: str = ""


def verdict(name: str, wrong: str, right: str, advice: str) -> Check:
    """A check that is well as long as nothing is `wrong`."""
    return Check(name, ok=False, detail=wrong, advice=advice) if wrong else Check(name, ok=True, detail=right)


def guarded(name: str, look: Callable[[], Iterable[Check]], advice: str) -> list[Check]:
    """The checks that `look` makes; if it cannot, one check that says why."""
    try:
        return list(look())
    except Exception as error:  # noqa: BLE001 -- one server that fails must not keep the others from being looked at
        return [Check(name, ok=False, detail=guard.sentence(error), advice=advice)]


def opened(name: str, connect: Callable[[], Server], advice: str) -> tuple[Server | None, Check]:
    """A connection to a server, and whether it was to be had."""
    try:
        return connect(), Check(name, ok=True, detail="answers")
    except Exception as error:  # noqa: BLE001 -- as above
        return None, Check(name, ok=False, detail=guard.sentence(error), advice=advice)
