"""What the tests publish and book is built in one place: events in `cloud_events.py`, the rest in `factories.py`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
BOOKED = {"Usage", "Payment", "WorkspaceState"}
HOMES = {"cloud_events.py", "factories.py"}


def _is_envelope(node: ast.AST) -> bool:
    members = dict(zip(map(_text, node.keys), node.values, strict=True)) if isinstance(node, ast.Dict) else {}
    return "subject" in members and isinstance(members.get("specversion"), ast.Constant)


def _text(node: ast.AST | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def _is_booked(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BOOKED


def built_here(source: str) -> Iterator[int]:
    """The lines that build an event's envelope, or what is booked; what is only compared is not built."""
    if "specversion" not in source and not any(f"{name}(" in source for name in BOOKED):
        return
    tree = ast.parse(source)
    imported = {
        name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "taximeter_db.ledger.events"
        for name in node.names
    }
    compared = {id(node) for check in ast.walk(tree) if isinstance(check, ast.Assert) for node in ast.walk(check)}
    for node in ast.walk(tree):
        if id(node) not in compared and (_is_envelope(node) or (_is_booked(node) and node.func.id in imported)):
            yield node.lineno


def test_what_is_built_is_found():
    assert list(built_here('event = {"specversion": "1.0", "subject": "acme"}')) == [1]
    assert list(built_here("from taximeter_db.ledger.events import Usage\nmade = Usage(event_id='e')")) == [2]
    assert list(built_here('assert event == {"specversion": "1.0", "subject": "acme"}')) == []


def test_events_and_what_is_booked_are_built_in_one_place():
    files = sorted(path for path in TESTS.rglob("*.py") if path.relative_to(TESTS).as_posix() not in HOMES)
    assert [f"{path.relative_to(TESTS)}:{line}" for path in files for line in built_here(path.read_text())] == []
