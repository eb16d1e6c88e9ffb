"""The list of malformed input has 50 rows, and each has a case."""

from __future__ import annotations

import re
from pathlib import Path

from malformed_input.cases import EVENTS

ROWS = 50
FOLDER = Path(__file__).parents[1] / "malformed_input"


def test_every_row_of_the_list_is_a_case():
    covered = {case.row for case in EVENTS}
    for path in FOLDER.glob("test_*.py"):
        for name in re.findall(r"^def (test_\w*row_\w+)\(", path.read_text(), re.MULTILINE):
            covered |= {int(number) for number in re.findall(r"row_(\d+)", name)}
    assert covered == set(range(1, ROWS + 1))


def test_cases_can_be_told_apart():
    names = [(case.row, case.name) for case in EVENTS]
    assert len(names) == len(set(names))
    assert len({case.workspace for case in EVENTS}) == len(EVENTS)
