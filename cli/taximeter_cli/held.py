"""What open holds hold, for whoever shows it: asked of the flag Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from taximeter.holds.server import HoldServer
from taximeter_db.secret import Secret

HELD_SECONDS: Final = 0.25
"""Nobody who looks waits longer for Redis."""
_PICO_PER_MICRO: Final = 10**6


def reader(redis_url: str) -> Callable[[str], int | None] | None:
    """A function from a workspace to picodollars, or to None where that is unknown; None without an address."""
    if not redis_url:
        return None
    server = HoldServer.for_reading(Secret(redis_url).reveal(), HELD_SECONDS)

    def held(workspace_id: str) -> int | None:
        microdollars = server.held(workspace_id)
        return None if microdollars is None else microdollars * _PICO_PER_MICRO

    return held
