"""The fixtures' answers, and what must be recorded of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FIXTURES: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parent / "data" / "adapters").glob("*.json"))
}
_WITHIN = {
    "reasoning_tokens": "output_tokens",
    "input_image_tokens": "input_tokens",
    "cached_input_audio_tokens": "cached_input_tokens",
}


def named(*beginnings: str) -> list[str]:
    """The fixtures whose names begin so."""
    return [name for name in FIXTURES if name.startswith(beginnings)]


def pools(name: str) -> dict[str, Any]:
    """What the first model of a fixture's answer consumed."""
    expected: dict[str, Any] = FIXTURES[name]["expected"]["parts"][0]["pools"]
    return expected


def folded(quantities: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """Quantities as the fixture counts them, which does not tell all pools apart; without zeros."""
    sums: dict[str, Any] = {}
    for unit, number in quantities.items():
        within = unit if unit in expected else _WITHIN.get(unit, unit)
        sums[within] = sums.get(within, 0) + number
    return {unit: number for unit, number in sums.items() if number}
