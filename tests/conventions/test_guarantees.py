"""docs/guarantees.md names a test for each promise: each named test exists, and each test of the faults is named."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guarantees.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@functools.cache
def _tests(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_test_that_shows_a_promise_exists():
    named = NAMED.findall(PAGE.read_text())
    assert len(named) > 40
    gone = [f"{path}::{name}" for path, name in named if name not in _tests(ROOT / path)]
    assert gone == []


def test_every_fault_has_a_test():
    text = PAGE.read_text()
    table = text.split("## Faults, and what was seen to hold")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 30
    assert [row for row in rows if not NAMED.search(row)] == []


def test_every_fault_test_is_on_the_page():
    named = set(NAMED.findall(PAGE.read_text()))
    files = sorted((ROOT / "tests" / "faults").glob("test_*.py"))
    for path in files:
        shown = {name for file, name in named if file == path.relative_to(ROOT).as_posix()}
        assert shown, f"{path.name} shows nothing that the page promises"
