"""No test asserts how long something took: a busy machine makes such a test fail, and an idle one makes it pass.

A test may measure time to wait or to print, and may compare moments: `before <= made_at <= after`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEST_FILES = sorted((ROOT / "tests").rglob("*.py"))

STOPWATCHES = {"monotonic", "perf_counter", "process_time", "thread_time"}
"""They tell no time of day: whatever is compared with their readings is a duration."""
SLEEPERS = {"sleep", "wait_for_timeout"}
CLOCKS = {"time", "now", "utcnow"}
"""A comparison of two moments is well; a difference of them is a duration."""


def _called(node: ast.AST, names: set[str]) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name.removesuffix("_ns") in names


def _reads(tree: ast.AST, clocks: set[str], variables: set[str]) -> bool:
    return any(
        _called(node, clocks) or (isinstance(node, ast.Name) and node.id in variables) for node in ast.walk(tree)
    )


def _names(target: ast.AST) -> Iterator[str]:
    return (node.id for node in ast.walk(target) if isinstance(node, ast.Name))


def _assigned(function: ast.AST, clocks: set[str]) -> set[str]:
    """The variables whose values come from a clock, by whatever way within this function."""
    found: set[str] = set()
    while True:
        before = len(found)
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and _reads(node.value, clocks, found):
                found.update(name for target in node.targets for name in _names(target))
            elif isinstance(node, ast.AugAssign | ast.AnnAssign | ast.NamedExpr):
                if node.value is not None and _reads(node.value, clocks, found):
                    found.update(_names(node.target))
            elif isinstance(node, ast.For | ast.comprehension) and _reads(node.iter, clocks, found):
                found.update(_names(node.target))
            elif (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {"append", "add", "extend"}
                and any(_reads(argument, clocks, found) for argument in node.args)
            ):
                found.update(_names(node.func.value))
        if len(found) == before:
            return found


def _is_difference(node: ast.AST, moments: set[str]) -> bool:
    """A moment less a fixed span is a moment again."""
    return (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Sub)
        and not _called(node.right, {"timedelta"})
        and _reads(node, CLOCKS, moments)
    )


def assertions_on_elapsed_time(source: str) -> list[int]:
    """The lines that assert a bound on a duration."""
    found: set[int] = set()
    if not re.search(rf"\b({'|'.join(STOPWATCHES | CLOCKS)})(_ns)?\(", source):
        return []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        durations = _assigned(function, STOPWATCHES)
        moments = {
            name
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and _called(node.value, CLOCKS)
            for target in node.targets
            for name in _names(target)
        }
        for node in ast.walk(function):
            if isinstance(node, ast.Assert) and (
                _reads(node.test, STOPWATCHES, durations)
                or any(_is_difference(part, moments) for part in ast.walk(node.test))
            ):
                found.add(node.lineno)
    return sorted(found)


def fixed_sleeps(source: str) -> list[int]:
    """The lines that sleep for a constant time outside of a loop."""
    if not any(sleeper in source for sleeper in SLEEPERS):
        return []
    tree = ast.parse(source)
    looped = {
        id(node)
        for loop in ast.walk(tree)
        if isinstance(loop, ast.While | ast.For | ast.AsyncFor)
        for node in ast.walk(loop)
    }
    return [
        node.lineno
        for node in ast.walk(tree)
        if _called(node, SLEEPERS)
        and id(node) not in looped
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and node.args[0].value  # sleep(0) lets others run
    ]


@pytest.mark.parametrize(
    "body",
    [
        "began = time.monotonic()\n    work()\n    assert time.monotonic() - began < 1",
        "began = time.perf_counter()\n    took = time.perf_counter() - began\n    assert work() and took < 1",
        "began = [time.process_time_ns()]\n    slow = [b - a for a, b in pairs(began)]\n    assert len(slow) < 8",
        "seen = []\n    seen.append(monotonic())\n    worst = max(seen)\n    assert worst <= 3",
        "now = time.time()\n    assert 3590 < ends_at - now <= 3600",
        "assert datetime.now(UTC) - made_at < timedelta(seconds=5)",
    ],
)
def test_an_assertion_on_elapsed_time_is_found(body: str):
    assert assertions_on_elapsed_time(f"def test():\n    {body}\n")


@pytest.mark.parametrize(
    "body",
    [
        "now = datetime.now(UTC)\n    assert now - timedelta(days=1) < made_at <= now",
        "before = time.time()\n    assert before <= make() <= time.time() + 3600",
        "deadline = time.monotonic() + 60\n    while not done() and time.monotonic() < deadline:\n        poll()",
        "began = time.monotonic()\n    work()\n    print(time.monotonic() - began)\n    assert done()",
    ],
)
def test_waiting_printing_and_comparing_moments_is_no_such_assertion(body: str):
    assert not assertions_on_elapsed_time(f"def test():\n    {body}\n")


def test_a_fixed_sleep_is_found():
    assert fixed_sleeps("def test():\n    time.sleep(0.5)\n") == [2]
    assert not fixed_sleeps("def wait():\n    while not done():\n        time.sleep(0.02)\n")


def test_no_test_asserts_how_long_something_took():
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in TEST_FILES
        for line in assertions_on_elapsed_time(path.read_text())
    ]
    assert found == []


def test_no_test_sleeps_for_a_fixed_time():
    """Wait for a condition instead: `waiting.eventually`."""
    found = [f"{path.relative_to(ROOT)}:{line}" for path in TEST_FILES for line in fixed_sleeps(path.read_text())]
    assert found == []
