"""The types of notices are one list, and docs/notices.md says of each what is sent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from factories import make_payment, make_state
from taximeter_dashboard.pages import notices as page
from taximeter_db.budgets.standing import Crossing
from taximeter_db.notices import addresses, compose, deliveries, outbox
from taximeter_db.status_changes import StatusChange
from taximeter_worker.notices import texts

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "notices.md").read_text(encoding="utf-8")
SENT = {key for key, kind in outbox.TYPES.items() if kind.is_sent}


def table(header: str) -> list[list[str]]:
    """The rows of the table of docs/notices.md that begins with this header."""
    _, found, rest = DOCUMENT.partition(f"\n{header}\n")
    assert found, f"docs/notices.md has no table {header}"
    rows = rest.split("\n\n", 1)[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def types_of(cell: str) -> set[str]:
    """The types that a cell means: all, those of a family (`workspace.*`), or one."""
    if cell == "all types":
        return SENT
    return {key for name in names(cell) for key in SENT if re.fullmatch(re.escape(name).replace(r"\*", ".*"), key)}


def change(after: str, cause: str) -> StatusChange:
    before = "sufficient" if after != "sufficient" else "low"
    seq = None if cause == "settings" else 1
    return StatusChange("acme", 0, before, after, 0, 0, 0, 1, cause, seq, "x")


def crossing(kind: str, cause: str) -> Crossing:
    named = "x" if cause in {"usage", "settings"} else None
    return Crossing("acme", 0, "search", kind, 100, 0, 0, True, cause, named)


def composed() -> list[outbox.Notice]:
    """One notice of each type and each kind of cause."""
    return [
        *(
            compose.of_status_change(change(after, cause))
            for after in ("sufficient", "low", "insufficient")
            for cause in ("usage", "payment", "settings")
        ),
        *(
            compose.of_budget_crossing(crossing(kind, cause), make_state())
            for kind, causes in {
                "warned": ("usage", "settings", "repricing"),
                "exceeded": ("usage", "settings", "repricing"),
                "restored": ("period", "settings", "repricing"),
            }.items()
            for cause in causes
        ),
        *compose.of_payments([make_payment()], {"acme": make_state()}),
        compose.of_missing_price(0, "acme", "chat", "", ""),
    ]


def test_the_document_lists_the_types_that_are_sent():
    assert [names(row[0])[0] for row in table("| type | when |")] == [key for key in outbox.TYPES if key in SENT]


def test_a_type_is_sent_exactly_if_something_composes_it():
    written = {
        name
        for path in (ROOT / "db" / "taximeter_db").rglob("*.py")
        for name in re.findall(r"\boutbox\.([A-Z_]+)\b", path.read_text(encoding="utf-8"))
    }
    assert {key for key in outbox.TYPES if key.upper().replace(".", "_") in written} == SENT
    assert {notice.type for notice in composed()} == SENT


def test_page_and_messages_name_every_type():
    assert set(page.TYPES) == SENT
    for key, kind in outbox.TYPES.items():
        assert page.NAMES[key] == kind.name
        body = outbox.Notice(workspace_id="acme", type=key, at=0, data={}).body()
        assert texts.of(body).title == f"Taximeter: acme: {kind.headline}"
    assert deliveries.TEST in page.NAMES


@pytest.mark.parametrize("notice", composed(), ids=lambda notice: f"{notice.type}-{notice.data['cause']['kind']}")
def test_the_document_lists_the_members_of_a_body(notice: outbox.Notice):
    listed = {
        member
        for members, where, _ in table("| member | in | is |")
        if notice.type in types_of(where)
        for member in names(members)
    }
    assert listed == {"workspace", *notice.data}
    cause: dict[str, Any] = notice.data["cause"]
    rows = [
        row
        for row in table("| `kind` | in | members |")
        if names(row[0]) == [cause["kind"]] and notice.type in types_of(row[1])
    ]
    assert len(rows) == 1
    said = set(names(rows[0][2]))
    members = set(cause) - {"kind"}
    assert members <= said, "the document does not list a member"
    assert said - members <= {"top_up", "refund"}, "the document lists a member that is not there"


def test_the_document_lists_the_services_of_owners():
    listed = [scheme for row in table("| for | addresses of owners may begin with |") for scheme in names(row[1])]
    assert sorted(listed) == sorted(f"{scheme}://" for scheme in addresses.OWNERS_SCHEMES)
