"""74 responses and streams as the providers' SDKs give them: the pools and flags that each must become, and its cost."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from taximeter import names, quantities

FOLDER = Path(__file__).parents[1] / "data" / "adapters"
FIXTURES = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
WITHIN = {
    "reasoning_tokens": "output_tokens",
    "input_image_tokens": "input_tokens",
    "cached_input_audio_tokens": "cached_input_tokens",
    "output_image_tokens": "output_tokens",
}
"""Pools that are counted apart here, and within which they stand in fixtures that do not know them."""
FLAGS = {"usage_missing", "stream_incomplete", "output_lower_bound", "multi_model", "server_tool_use"}
FLAGS |= {"overlap_resolved", "exclusive_cached_detected", "service_tier:flex"}
"""The flags that a reading has. Others of the fixtures say what a library lost before anyone could read it."""


def read(fixture: dict[str, Any]) -> quantities.Reading:
    answer = fixture.get("events", fixture.get("response"))
    return quantities.read(
        fixture["shape"],
        answer,
        model=fixture["model"],
        provider=fixture["provider"],
        request=fixture.get("request"),
    )


def folded(pools: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Pools that the fixture does not know, within the pool in which it counts them; without zeros."""
    sums: dict[str, Any] = {}
    for unit, number in pools.items():
        within = unit if unit in known or unit not in WITHIN else WITHIN[unit]
        sums[within] = sums.get(within, 0) + number
    return {unit: number for unit, number in sums.items() if number}


def test_the_fixtures_are_there() -> None:
    assert len(FIXTURES) == 74


def as_object(value: Any) -> Any:
    """As an SDK gives it: objects with attributes."""
    if isinstance(value, dict):
        return SimpleNamespace(**{name: as_object(member) for name, member in value.items()})
    return [as_object(member) for member in value] if isinstance(value, list) else value


@pytest.mark.parametrize("form", [lambda answer: answer, as_object], ids=["json", "objects"])
@pytest.mark.parametrize("name", FIXTURES)
def test_a_response_becomes_its_pools(name: str, form: Any) -> None:
    fixture = FIXTURES[name]
    expected = fixture["expected"]
    forms = {key: form(fixture[key]) for key in ("response", "events") if key in fixture}
    reading = read({**fixture, **forms})
    assert len(reading.parts) == len(expected["parts"])
    for part, wanted in zip(reading.parts, expected["parts"], strict=True):
        assert folded(part.pools, wanted["pools"]) == folded(wanted["pools"], wanted["pools"])
        for unit, number in wanted.get("detail_units", {}).items():
            assert part.pools[unit] == number
        assert set(part.pools) <= set(names.STANDARD_UNITS)
        assert (part.model or "").startswith(wanted["model"])
        assert part.suffix == wanted.get("key_suffix", "")
    assert set(reading.flags) == set(expected["flags"]) & FLAGS


@pytest.mark.parametrize("name", [name for name, fixture in FIXTURES.items() if "events" in fixture])
def test_a_stream_that_breaks_off_says_so_and_never_counts_more_than_the_whole(name: str) -> None:
    fixture = FIXTURES[name]
    events = fixture["events"]
    whole = sum(sum(part.pools.values()) for part in read(fixture).parts)
    for end in range(len(events)):
        reading = read({**fixture, "events": events[:end]})
        known = sum(sum(part.pools.values()) for part in reading.parts)
        if name != "ant-stream-compat-corrected-delta":  # its first event says more than was consumed
            assert known <= whole
        assert ("usage_missing" in reading.flags) == (not reading.parts[0].pools)
        assert "output_lower_bound" not in reading.flags or "stream_incomplete" in reading.flags
