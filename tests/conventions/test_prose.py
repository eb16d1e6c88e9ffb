"""Plain English: words and turns of phrase that an English reader stumbles on stay out of code, docs and page."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from servers import require

ROOT = Path(__file__).parents[2]
# Each with what to write instead.
BANNED = {
    r"\bmend(?:s|ed|ing)?\b": "fix, repair",
    r"\banew\b": "again, from the start",
    r"\bsince ever\b": "from the beginning",
    r"\bof then\b": "of that time, or name the time",
    r"\bso many\b": "the number, or at most N",
    r"\bso often\b": "the number of times",
    r"(?<!there )\b(is|are) no (?!longer\b)[a-z]+": "is not a …, are not …, there is no …",
    r"\bwith a word\b": "with a message",
    r"\bnot to be had\b": "not available",
    r"\bwhat is more\b": "also",
    r"\bcareful way\b": "strict path",
    r"\bfast way\b": "fast path",
    r"\bhopeful(?:ly)?\b": "optimistic",
    r"\bmake sure of\b": "check, ensure",
    r"\bby and by\b": "gradually",
    r"\bhouse rules?\b": "conventions",
    r"\bchores?\b": "background thread",
    r"\bpark(?:s|ed|ing)?\b": "quarantine",
    r"\b(?:thereof|whereof|therein|wherein|thereby|whereby|hitherto|henceforth|albeit|lest)\b": "plain words",
}
PATTERNS = ("*.py", "*.md", "*.sql", "*.lua", "*.html", "*.js", "*.yml", "*.yaml", "*.toml", "Makefile", ".ci/run")
# Released entries and decision records are not rewritten; test data is as it came; this file names the words.
EXCLUDED = (
    "docs/decisions/",
    "tests/data/",
    "tests/conventions/test_prose.py",
    "docs/glossary.md",
    "migrations/versions/00",
    "static/vendor",
)


def _texts() -> list[tuple[str, str]]:
    listed = subprocess.run(["git", "ls-files", "--", *PATTERNS], cwd=ROOT, capture_output=True, text=True, check=False)
    require("the git checkout, which knows the project's files,", not listed.returncode, "git clone the project")
    return [
        (name, (ROOT / name).read_text())
        for name in listed.stdout.splitlines()
        if not any(part in name for part in EXCLUDED) and (ROOT / name).is_file()
    ]


def test_words_that_readers_stumble_on_stay_out():
    offences = []
    any_of_them = re.compile("|".join(BANNED), re.IGNORECASE)
    for name, text in _texts():
        if not any_of_them.search(text):
            continue
        for banned, instead in BANNED.items():
            for match in re.finditer(banned, text, re.IGNORECASE):
                line = text.count("\n", 0, match.start()) + 1
                offences.append(f"{name}:{line} {match.group()!r}: write {instead}")
    assert offences == []


def test_prose_is_wrapped_at_120():
    long = [
        f"{name}:{number} {len(line)}"
        for name, text in _texts()
        if name.endswith(".md") and not name.startswith("requirements")
        for number, line in _prose_lines(text)
        if len(line) > 120
    ]
    assert long == []


def _prose_lines(text: str) -> list[tuple[int, str]]:
    """Lines outside of code blocks, tables and generated sections; a link's address may run on."""
    lines, fenced = [], False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif line.startswith(("<!-- measured", "<!-- end")):
            fenced = line.startswith("<!-- measured")
        elif not fenced and not line.lstrip().startswith("|"):
            lines.append((number, re.sub(r"\]\([^)]*\)", "]()", line)))
    return lines
