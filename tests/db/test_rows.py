"""The hand-packed binary formats, read back by a real server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taximeter_db import connect
from taximeter_db.ledger import binary_rows

LIMIT = 10**27 - 1
edges = st.sampled_from(
    [0, 1, -1, 9_999, 10_000, 10**8, 10**12, 10**16 - 1, 10**16, -(10**16), 10**20 - 1, 10**20, LIMIT, -LIMIT]
)
fixture_is_fine = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with connect.booking_connection(database_url) as connection:
        yield connection


@fixture_is_fine
@given(st.lists(edges | st.integers(-LIMIT, LIMIT), max_size=20))
def test_numerics(conn: psycopg.Connection[Any], values: list[int]):
    (found,) = conn.execute("SELECT %s", [binary_rows.NumericArray(values)]).fetchone()
    assert [int(value.scaleb(12)) for value in found] == values
    for value in values[:3]:
        single, sent = conn.execute(
            "SELECT n, numeric_send(n) FROM (SELECT %s::numeric(27,12) AS n) AS one", [binary_rows.Numeric(value)]
        ).fetchone()
        assert single == Decimal(value).scaleb(-12)
        assert sent == binary_rows.numeric(value)[4:]


@fixture_is_fine
@given(
    st.lists(st.uuids(), max_size=5),
    st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=5),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
    st.lists(st.binary(max_size=9), max_size=5),
)
def test_other_arrays(
    conn: psycopg.Connection[Any], ids: list[uuid.UUID], texts: list[str], numbers: list[int], data: list[bytes]
):
    found = conn.execute(
        "SELECT %s, %s, %s, %s",
        [
            binary_rows.UuidArray([value.bytes for value in ids]),
            binary_rows.TextArray([binary_rows.text(value) for value in texts]),
            binary_rows.BigintArray(numbers),
            binary_rows.ByteaArray(data),
        ],
    ).fetchone()
    assert found == (ids, texts, numbers, data)
