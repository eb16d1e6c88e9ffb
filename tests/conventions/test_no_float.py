"""No float touches an amount: the source of every package is searched for the ways one could get in.

Floats are right for durations in seconds, so a line that sleeps may hold one. Metrics and timers, which compute no
amount, are not searched.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEVER = (
    "db/taximeter_db/*.py",
    "producers/taximeter/pricing/*.py",
    "worker/taximeter_worker/pricing/*.py",
    "worker/taximeter_worker/bills/*.py",
    "worker/taximeter_worker/decode/*.py",
    "worker/taximeter_worker/consume/batch.py",
    "worker/taximeter_worker/tasks/replay.py",
    "cli/taximeter_cli/commands/prices/*.py",
    "cli/taximeter_cli/payments*.py",
    "cli/taximeter_cli/commands/workspaces.py",
)
"""The paths of money."""
TIMERS = ("db/taximeter_db/backoff.py",)
FLOAT_MAKERS = {"float", "fsum"}


def floats(tree: ast.AST) -> Iterator[ast.AST]:
    """Where a module writes a float, names the type, makes one, or divides so that one comes out."""
    for node in ast.walk(tree):
        written = isinstance(node, ast.Constant) and isinstance(node.value, float | complex)
        named = isinstance(node, ast.Name) and node.id in FLOAT_MAKERS
        divided = isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div)
        if written or named or divided:
            yield node


def exact_division(node: ast.AST) -> bool:
    """Whether a division is one of paths or of fractions, as its operands say."""
    if not isinstance(node, ast.BinOp):
        return False
    text = ast.unparse(node)
    return (
        "Fraction(" in text
        or "Path(" in text
        or (isinstance(node.right, ast.Constant) and isinstance(node.right.value, str))
    )


def modules(patterns: tuple[str, ...]) -> list[Path]:
    return sorted({path for pattern in patterns for path in ROOT.glob(pattern)} - {ROOT / path for path in TIMERS})


def test_the_search_finds_each_way() -> None:
    for source in ("x = 0.5", "x = float('1')", "def f(x: float): ...", "x = a / b", "x /= 2", "x = 1e3"):
        assert list(floats(ast.parse(source))), source
    assert not list(floats(ast.parse("x = 5 // 2; y = Decimal('0.5'); z = isinstance(x, int)")))


@pytest.mark.parametrize("path", modules(NEVER), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_float_on_the_paths_of_money(path: Path) -> None:
    lines = path.read_text().splitlines()
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {lines[node.lineno - 1].strip()}"
        for node in floats(ast.parse("\n".join(lines)))
        if not exact_division(node) and "time.sleep(" not in lines[node.lineno - 1]
    ]
    assert found == []


def test_json_with_amounts_is_read_without_floats() -> None:
    """The standard library's reader turns 0.1 into a float unless it is told otherwise. (Members' names are text.)"""
    found = []
    for path in modules(NEVER):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
                ("json.loads", "json.load", "jsonlib.loads")
            ):
                told = any(keyword.arg == "parse_float" for keyword in node.keywords)
                if not told and ast.unparse(node.args[0]) != "name":
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == [], "say parse_float=Decimal"
