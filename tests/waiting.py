"""Waiting for a condition: tests have no fixed sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def eventually(check: Callable[[], Any], seconds: float = 60.0, what: str = "") -> Any:
    """Wait until ``check`` returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while True:
        result = check()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} seconds: {what or check}")
        time.sleep(0.02)
