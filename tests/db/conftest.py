"""Ready-made usages and payments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from factories import make_payment, make_usage
from taximeter_db import connect
from taximeter_db.ledger.events import Payment, Usage


@pytest.fixture
def usage() -> Callable[..., Usage]:
    return make_usage


@pytest.fixture
def payment() -> Callable[..., Payment]:
    return make_payment


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with connect.booking_connection(database_url) as connection:
        yield connection
