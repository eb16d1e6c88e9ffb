"""A standard unit is known wherever it must be: in the documents, in both catalogues' maps and to the SDK's quantities."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from taximeter.errors import InvalidEventError
from taximeter.names import PARENT_UNITS, STANDARD_UNITS
from taximeter.quantities.usage import CALLS_UNIT, Usage
from taximeter_worker.pricing import genai_catalogue, litellm_catalogue

DOCS = Path(__file__).parents[2] / "docs"
_CODE = re.compile(r"`([a-z0-9_]+)`")


def rows_below(page: str, head: str) -> list[list[str]]:
    """The rows of the table with this head, as cells."""
    _, found, table = (DOCS / page).read_text().partition(f"\n{head}\n")
    assert found, f"docs/{page} has no table with the head {head}"
    lines = table.partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_about_events_lists_every_unit_with_its_parent() -> None:
    rows = rows_below("events.md", "| unit | counts | part of |")
    listed = {_CODE.findall(unit)[0]: _CODE.findall(parent) for unit, _, parent in rows}
    assert listed == {unit: [PARENT_UNITS[unit]] if unit in PARENT_UNITS else [] for unit in STANDARD_UNITS}


def test_the_page_about_prices_says_which_price_each_sub_pool_takes() -> None:
    rows = rows_below("prices.md", "| a sub-pool without a price of its own | takes the price of |")
    listed = {unit: _CODE.findall(parents) for units, parents in rows for unit in _CODE.findall(units)}
    chains = {}
    for unit in PARENT_UNITS:
        chain = chains[unit] = []
        parent = PARENT_UNITS.get(unit)
        while parent is not None:
            chain.append(parent)
            parent = PARENT_UNITS.get(parent)
    assert listed == chains


@pytest.mark.parametrize(
    ("catalogue", "fields"),
    [(genai_catalogue, genai_catalogue.UNITS), (litellm_catalogue, litellm_catalogue.FIELDS)],
    ids=["genai-prices", "litellm"],
)
def test_a_catalogue_prices_every_unit_or_says_that_it_does_not(
    catalogue: ModuleType, fields: dict[str, tuple[str, int]]
) -> None:
    priced = {unit for unit, _ in fields.values()} & set(STANDARD_UNITS)
    assert not priced & catalogue.NOT_PRICED
    assert priced | catalogue.NOT_PRICED == set(STANDARD_UNITS)


@pytest.mark.parametrize("unit", STANDARD_UNITS)
def test_a_count_of_a_standard_unit_is_not_passed_over(unit: str) -> None:
    if unit == CALLS_UNIT:
        Usage({unit: 1}).all_read()
        return
    for given in ({unit: 1}, {"details": {unit: 1}}, {"models": [{unit: 1}]}):
        with pytest.raises(InvalidEventError, match=unit):
            Usage(given).all_read()
