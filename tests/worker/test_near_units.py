"""A misspelt unit is told from one that has no price: the sentence names the unit that was meant."""

from __future__ import annotations

from decimal import Decimal

import pytest

from taximeter.names import STANDARD_UNITS
from taximeter.near_units import near_unit
from taximeter_db.connect import connection
from taximeter_db.prices.changes import set_price
from taximeter_db.prices.store import Price, Target
from waiting import eventually
from workers import Feed, usage


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("inputTokens", "input_tokens"),
        ("InputTokens", "input_tokens"),
        ("prompt_tokens", "input_tokens"),
        ("promptTokenCount", "input_tokens"),
        ("completion_tokens", "output_tokens"),
        ("input-tokens", "input_tokens"),
        ("inputTokenCount", "input_tokens"),
        ("input_token", "input_tokens"),
        ("input_tokes", "input_tokens"),
        ("cache_read_input_tokens", "cached_input_tokens"),
        ("image", "images"),
        ("chars", "characters"),
        ("gpu_hours", None),
        ("x", None),
        ("", None),
        ("minutes", None),
    ],
)
def test_what_was_meant(given, meant):
    assert near_unit(given, STANDARD_UNITS) == meant


def test_only_what_has_a_price_can_be_meant():
    assert near_unit("prompt_tokens", ["seconds"]) is None
    assert near_unit("gpu_hour", ["gpu_hours"]) == "gpu_hours", "a unit of the price book's own"


def test_the_quarantine_says_which_unit_was_meant(new_runtime, valkey_broker_url, priced_url, ledger):
    feed = Feed(valkey_broker_url)
    price = Price(target=Target("ocr", None, None), unit="pages", amount=Decimal(1), per=Decimal(1000))
    with connection(priced_url) as conn:
        set_price(conn, price)
    new_runtime(valkey_broker_url)
    for units in ({"inputTokens": 1}, {"prompt_tokens": 1}, {"gpu_hours": 1}, {"output_tokens": 1}):
        feed.send(usage("acme", quantities=units))
    eventually(lambda: ledger.quarantined() == {"price_missing": 4})
    details = ledger.one("SELECT string_agg(detail, E'\\n' ORDER BY id) FROM taximeter.quarantine").splitlines()
    told = {detail.split()[3]: detail for detail in details}
    for unit in ("inputTokens", "prompt_tokens"):
        assert "Did you mean input_tokens, which has one?" in told[unit]
    for unit in ("gpu_hours", "output_tokens"):
        assert "Did you mean" not in told[unit], "no other unit's name, or a standard one that has no price yet"
