"""Conventions of the project as tests: what a review would otherwise have to repeat."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE_FOLDERS = ("producers", "db", "worker", "dashboard", "gateway", "cli")
FILE_LINES_MAX = 350
FUNCTION_LINES_MAX = 70


def _tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "--", *patterns], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:  # an unpacked sdist
        return [path for pattern in patterns for path in ROOT.rglob(pattern) if ".venv" not in path.parts]
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def _sources() -> list[Path]:
    found = [path for path in _tracked("*.py") if path.relative_to(ROOT).parts[0] in SOURCE_FOLDERS]
    assert len(found) > 30
    return found


def test_files_stay_readable():
    long = {str(p.relative_to(ROOT)): n for p in _sources() if (n := len(p.read_text().splitlines())) > FILE_LINES_MAX}
    assert long == {}, "split these, each part being one thing"


def test_functions_stay_readable():
    long = []
    for path in _sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                if lines > FUNCTION_LINES_MAX:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name} {lines}")
    assert long == []


def test_layers_hold():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_requirements_are_pinned_by_hash_and_name_no_host(name: str):
    text = (ROOT / name).read_text()
    assert "://" not in text
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) > 30
    for entry in entries:
        assert re.match(r"[\w.\-\[\]]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_no_lock_file_with_addresses():
    assert not (ROOT / "uv.lock").exists()


def test_make_help_names_every_target():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE).group(1).split()
    for target in phony:
        assert re.search(rf"^{target}:.*## \S", makefile, re.MULTILINE), f"{target} has no line for `make help`"


def test_decisions_are_numbered_once_and_complete():
    records = sorted(path for path in (ROOT / "docs" / "decisions").glob("*.md") if path.name != "README.md")
    numbers = [path.name[:4] for path in records]
    assert len(numbers) == len(set(numbers)) > 0
    for path in records:
        text = path.read_text().lower()
        assert re.match(r"\d{4}-[a-z0-9-]+\.md$", path.name), path.name
        for part in ("context", "decision", "consequence"):
            assert part in text, f"{path.name} has no {part}"


def test_links_between_documents_lead_somewhere():
    broken = [
        f"{path.relative_to(ROOT)} -> {target}"
        for path in _tracked("*.md")
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text())
        if not target.startswith(("http:", "https:", "mailto:")) and not (path.parent / target).exists()
    ]
    assert broken == []


def test_every_page_is_in_the_list_of_pages():
    listed = (ROOT / "docs" / "README.md").read_text()
    pages = [path.name for path in sorted((ROOT / "docs").glob("*.md")) if path.name != "README.md"]
    assert [page for page in pages if f"]({page})" not in listed] == []


def test_changelog_has_an_unreleased_section():
    assert re.search(r"^## \[Unreleased\]\n", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
