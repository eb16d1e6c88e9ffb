"""docs/decisions/README.md lists every record with its title and status."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_index_of_decisions_lists_each_with_its_status():
    folder = ROOT / "docs" / "decisions"
    rows = re.findall(
        r"^\| \[(\d{4})\]\(([^)]+)\) \| (.+) \| (.+) \|$", (folder / "README.md").read_text(), re.MULTILINE
    )
    records = {path.name[:4]: path for path in folder.glob("[0-9]*.md")}
    assert [number for number, *_ in rows] == sorted(records)
    for number, name, title, status in rows:
        assert name == records[number].name
        assert records[number].read_text().splitlines()[0] == f"# {number}: {title}"
        assert re.match(r"accepted|superseded by \d{4}", status), number
