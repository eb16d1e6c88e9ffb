from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter_db import money
from taximeter_db.errors import AmountError

LIMIT = 10**27 - 1
picodollars = st.integers(-LIMIT, LIMIT)


@given(picodollars)
def test_text_and_decimal_round_trip(pico: int):
    assert money.parse_usd(money.format_usd(pico)) == pico
    assert money.from_numeric_text(money.numeric_text(pico)) == pico
    assert money.to_pico(Decimal(money.format_usd(pico))) == pico
    assert Decimal(money.format_usd(pico)) * 10**12 == pico


@pytest.mark.parametrize(
    ("pico", "text"),
    [(0, "0"), (762_500_000, "0.0007625"), (-120_000_000_000, "-0.12"), (1, "0.000000000001"), (25 * 10**12, "25")],
)
def test_shortest_plain_form(pico: int, text: str):
    assert money.format_usd(pico) == text


@pytest.mark.parametrize(
    "text",
    ["", "1e3", "NaN", "Infinity", "1_000", "1,5", " 1", "1 ", "٣", ".5", "5.", "1.0000000000001", "1" * 16, "--1"],
)
def test_only_plain_decimals_are_amounts(text: str):
    with pytest.raises(AmountError, match="is not an amount in USD"):
        money.parse_usd(text)


@pytest.mark.parametrize(
    "value",
    [
        Decimal("NaN"),
        Decimal("-Infinity"),
        Decimal("1E+999999999"),
        Decimal("1E-13"),
        10**15,
        -(10**15),
        True,
        0.1,
        None,
    ],
)
def test_what_is_no_exact_amount_in_range_is_refused(value: object):
    with pytest.raises(AmountError):
        money.to_pico(value)  # type: ignore[arg-type]


def test_decimals_with_exponents_are_exact():
    assert money.to_pico(Decimal("2.5E+3")) == 2_500 * 10**12
    assert money.to_pico(Decimal("0E-40")) == 0
    assert money.to_pico(Decimal("1.000000000000000")) == 10**12


@pytest.mark.parametrize(
    ("balance", "status"),
    [
        (0, "sufficient"),
        (-1, "low"),
        (-120_000_000_000, "low"),
        (-120_000_001_000, "insufficient"),
        (-120_000_000_001, "insufficient"),
    ],
)
def test_boundaries_of_the_status(balance: int, status: str):
    assert money.status_of(balance, -120_000_000_000, 0) == status
