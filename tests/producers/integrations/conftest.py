"""A provider on this machine, and a meter in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from provider_server import Provider, provider
from taximeter.testing import MemoryMeter


@pytest.fixture(scope="module")
def running_provider() -> Iterator[Provider]:
    with provider() as running:
        yield running


@pytest.fixture
def remote(running_provider: Provider) -> Provider:
    """A provider that has been asked nothing yet."""
    running_provider.requests.clear()
    running_provider.failures = 0
    running_provider.gate = None
    return running_provider


@pytest.fixture
def meter() -> MemoryMeter:
    return MemoryMeter()
