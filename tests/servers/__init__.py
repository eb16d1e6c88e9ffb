"""Real servers for tests: PostgreSQL and Valkey through the product's own supervisor, RabbitMQ from the system."""

from __future__ import annotations

import os

import pytest

__all__ = ["require"]


def require(service: str, present: object, hint: str) -> None:
    """Skip the test on a person's machine when a service is missing, and fail it in CI."""
    if present:
        return
    sentence = f"{service} is not available: {hint}"
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)
