"""Real servers for tests: PostgreSQL and Valkey through the product's own supervisor, RabbitMQ from the system."""

from __future__ import annotations

import os

import pytest

__all__ = ["QUICK_POSTGRES", "QUICK_VALKEY", "require"]

# Throw-away data: it need not survive the machine. What survives a killed process is the same without fsync.
QUICK_POSTGRES = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB", "max_connections": "60"}
QUICK_VALKEY = {"appendfsync": "everysec"}


def require(service: str, present: object, hint: str) -> None:
    """Skip the test on a person's machine when a service is missing, and fail it in CI."""
    if present:
        return
    sentence = f"{service} is not available: {hint}"
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)
