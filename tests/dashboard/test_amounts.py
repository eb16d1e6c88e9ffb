# ruff: noqa: RUF001 - the minus sign is what is tested
"""Amounts, times and excerpts as a person reads them."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter_dashboard.formatting import amounts, contents, times
from taximeter_db.money import format_usd

PICO = 10**12


def pico(text: str) -> int:
    return int(Decimal(text) * PICO)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0.0000305", "$0.0000305"),
        ("0.31", "$0.31"),
        ("0.3", "$0.30"),
        ("25", "$25.00"),
        ("-0.12", "−$0.12"),
        ("0.000000000001", "$0.000000000001"),
        ("1234567.5", "$1,234,567.50"),
    ],
)
def test_exact(amount: str, text: str):
    assert amounts.exact(pico(amount)) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("12.8416972305", "$12.84"),
        ("12.845", "$12.84"),
        ("12.855", "$12.86"),
        ("-0.12", "−$0.12"),
        ("-0.120000000001", "−$0.120000000001"),
        ("-0.119999999999", "−$0.119999999999"),
        ("0.004", "$0.004"),
        ("-0.001", "−$0.001"),
        ("0", "$0.00"),
        ("-0.03", "−$0.03"),
    ],
)
def test_balances_round_but_never_over_a_limit(amount: str, text: str):
    assert amounts.rounded(pico(amount), (pico("-0.12"), 0)) == text


@given(st.integers(-(10**24), 10**24), st.integers(-(10**15), 10**15))
def test_the_shown_balance_lies_on_the_same_side_of_every_limit(balance: int, limit: int):
    shown = amounts.rounded(balance, (limit,))
    value = Decimal(shown.replace("−", "-").replace("$", "").replace(",", ""))
    assert (value < Decimal(format_usd(limit))) == (balance < limit)
    assert "e" not in shown.lower()


def test_averages_have_four_digits():
    assert amounts.average(pico("3.2104"), 1204) == "≈$0.002666"
    assert amounts.average(pico("3"), 2) == "$1.50"
    assert amounts.average(0, 0) == "$0.00"


def test_a_cell_is_exact_for_machines_and_in_line_for_eyes():
    text = str(amounts.cell(pico("0.0000305"), 9))
    assert text == '<data class="amount" value="0.0000305" data-pad="00"><i>$0.0000</i>305</data>'
    assert str(amounts.cell(pico("12.5"), 2)) == '<data class="amount" value="12.5">$12.50</data>'


def test_top_ups_round_up_to_a_cent():
    assert amounts.cents_up(pico("0.000000000001")) == pico("0.01")
    assert amounts.cents_up(pico("0.13")) == pico("0.13")


def test_amounts_in_a_sentence_do_not_break_and_stay_text():
    assert str(amounts.unbroken("a <b> −$0.12 to $1,000.00.")) == (
        'a &lt;b&gt; <span class="amount">−$0.12</span> to <span class="amount">$1,000.00</span>.'
    )
    assert str(amounts.unbroken("until about 4 December (9 days).")) == (
        'until about 4 December <span class="whole">(9 days)</span>.'
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (5, "less than a minute"),
        (60, "1 minute"),
        (3 * 3600, "3 hours"),
        (27 * 86400, "27 days"),
        (45 * 86400, "2 months"),
    ],
)
def test_durations(seconds: int, text: str):
    assert times.duration(seconds) == text


def test_zones():
    noon = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)
    nepal = times.zone("Asia/Kathmandu")
    assert times.zone_label(nepal, noon) == "Asia/Kathmandu, UTC+5:45"
    assert "17:45:00" in times.short(noon, nepal, noon)
    assert "2026-11-22 12:00:00 UTC" in times.full(noon, nepal)
    assert times.zone("../../etc/passwd").key == times.zone("nonsense").key == "UTC"


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (rb'{"input":"<b>","output":"x"}', ("<b>", "x")),
        (rb'{"input":"a\u0000\ud800b"}', ("a␀\\ud800b", "")),
        (rb'{"input":[{"role":"user","content":"first"},{"role":"user","content":"last"}]}', ("last", "")),
        (rb'{"input":{"n":1e5}}', ('{"n":1e5}', "")),
        (rb'{"metadata":{}}', ("", "")),
        (rb"not json", ("", "")),
    ],
)
def test_excerpts(payload: bytes, shown: tuple[str, str]):
    assert contents.excerpts(payload, whole=True) == shown


@pytest.mark.parametrize("size", range(10, 40))
def test_an_excerpt_of_a_beginning_never_fails(size: int):
    payload = '{"input":"aé\\u00e9\\\\\\n\\"b\\ud83d\\ude00 and on","output":"x"}'.encode()
    first, second = contents.excerpts(payload[:size], whole=False)
    assert first.startswith("a") or size < 12
    assert second == "…"


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b'{"input":"short","output":"' + b"and on " * 20_000 + b'"}', ("short", "and on " * 11 + "an…")),
        (b'{"input":"short","metadata":"' + b"m" * 90_000 + b'"}', ("short", "")),
        (
            b'{"input":[{"role":"user","content":"last"}],"output":["' + b"x" * 90_000 + b'"]}',
            ("last", '["' + 77 * "x" + "…"),
        ),
        (b'{"output":"' + b"y" * 90_000 + b'"}', ("", "y" * 79 + "…")),
        (b'{"output":"all of it","metadata":"' + b"y" * 90_000 + b'"}', ("", "all of it")),
        (b'{"input":' + b"[" * 90_000, ("[" * 79 + "…", "…")),
        (b'{"input":' + b"9" * 90_000, ("9" * 79 + "…", "…")),
    ],
)
def test_excerpts_of_a_beginning_say_what_it_holds(payload: bytes, shown: tuple[str, str]):
    assert contents.excerpts(payload[: contents.EXCERPT_BYTES], whole=False) == shown


def test_parts_keep_every_digit():
    (part,) = contents.parts(b'{"input":{"n":1.10,"e":1E400}}')
    assert part.text == '{\n  "n": 1.10,\n  "e": 1E400\n}'
    (cut,) = contents.parts(b'{"input":"' + b"x" * 300_000 + b'"}')
    assert cut.cut
    assert len(cut.text) == 64 * 1024
