"""No SQL text stands in a Python module: Core over the models' tables, or a ``.sql`` file with a header.

See `taximeter_db.core` and `taximeter_db.sql`. Migrations are SQL by nature.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from taximeter_db.sql import statement, statements

ROOT = Path(__file__).parents[2]
FOLDERS = ("producers", "db", "worker", "dashboard", "gateway", "cli")
SQL = re.compile(
    r"\bSELECT\s+[\w('*%{]|\bINSERT INTO\b|\bDELETE FROM\b|\bUPDATE\s+\S+\s+(AS\s+\w+\s+)?SET\b|\bCOPY\s+[\w{].*\b(FROM|TO)\b"
    r"|\bFROM taximeter\.|\bORDER BY\b|\bGROUP BY\b|\bON CONFLICT\b|\bUNION ALL\b|\bLEFT JOIN\b"
    r"|^\s*(SET|RESET)\s+(LOCAL|SESSION|TRANSACTION|\w+\s*(=|TO)\s)|^\s*(BEGIN|COMMIT|ROLLBACK)\b( ISOLATION|;|$)"
    r"|^\s*(LISTEN|NOTIFY|LOCK TABLE|CREATE|ALTER|DROP|GRANT|REVOKE|TRUNCATE)\s+\w",
)
# Builds COPY from a table's columns.
HOME = "db/taximeter_db/core.py"


def _constants(tree: ast.Module) -> list[ast.Constant]:
    """String constants that are not docstrings."""
    free = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in free
    ]


def _sql_of(text: str) -> list[int]:
    return [node.lineno for node in _constants(ast.parse(text)) if SQL.search(node.value)]


def _modules() -> dict[str, list[int]]:
    return {
        name: lines
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "migrations" not in path.parts
        and (name := path.relative_to(ROOT).as_posix()) != HOME
        and (lines := _sql_of(path.read_text()))
    }


def test_no_sql_text_stands_in_a_module():
    assert _modules() == {}


@pytest.mark.parametrize(
    "text",
    [
        'x = "SELECT 1"',
        'conn.execute(f"SELECT {columns} FROM taximeter.usages")',
        'x = """\nINSERT INTO taximeter.payments VALUES (1)\n"""',
        'x = "UPDATE taximeter.workspaces AS w SET version = 1"',
        'conn.execute("SET LOCAL lock_timeout = 1")',
        'conn.execute("SET lock_timeout = 1")',
        'conn.execute("BEGIN")',
        'conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")',
        'x = "LISTEN flags"',
        'x = " WHERE a = b ORDER BY c"',
        'copy("COPY taximeter.usages (a) FROM STDIN")',
    ],
)
def test_sql_is_recognised(text: str):
    assert _sql_of(text) == [1]


@pytest.mark.parametrize(
    "text",
    ['"""SELECT 1 in a docstring."""', 'x = "Set a price from now on."', 'x = "SELECT"', 'x = "Update the list"'],
)
def test_prose_is_no_sql(text: str):
    assert _sql_of(text) == []


def test_statements_of_a_file_go_by_name(monkeypatch: pytest.MonkeyPatch):
    text = "-- What they do.\n-- name: one\n-- Returns: a row.\nSELECT 1\n-- name: two\nSELECT 2\n"
    monkeypatch.setattr("taximeter_db.sql.statement", lambda _name: text)
    assert statements("several") == {"one": "\n-- Returns: a row.\nSELECT 1\n", "two": "\nSELECT 2\n"}


def test_every_sql_file_says_what_it_does():
    files = sorted((ROOT / "db" / "taximeter_db" / "sql").glob("*.sql"))
    assert len(files) > 15
    assert [path.name for path in files if not statement(path.stem).startswith("-- ")] == []
