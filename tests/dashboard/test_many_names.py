"""A workspace that uses ever new names of tools and models: the page names a bounded number of them, and says so."""

from __future__ import annotations

import pytest

from dashboard_factory import bearer, make_usage
from taximeter_db.ledger import booking, rollups
from taximeter_db.queries import filtered
from taximeter_db.queries.filtered import Filter, Window

BASE = "/api/v1/workspaces/acme"
NAMES = 400


@pytest.fixture
def crowded(conn):
    """`NAMES` models of one tool in two batches, then three more tools; one usage of each, and of the first model two."""
    booking.book(conn, [make_usage(model=f"model-{n:03d}", cost="0.01") for n in range(NAMES // 2)])
    rollups.advance(conn, "acme")
    booking.book(conn, [make_usage(model=f"model-{n:03d}", cost="0.01") for n in range(NAMES // 2, NAMES)])
    booking.book(conn, [make_usage(tool=f"tool-{n}", model="model-000", cost="0.01") for n in range(3)])
    booking.book(conn, [make_usage(model="model-000", cost="0.01")])
    rollups.advance(conn, "acme")
    return conn


def test_the_rollups_name_a_bounded_number_and_lose_nothing(crowded):
    (pairs,) = crowded.execute("SELECT count(DISTINCT (tool, model)) FROM taximeter.usage_names").fetchone()
    assert pairs == rollups.NAMES_MAX + 2, "those, the tool's other models, and other tools"
    (usages, cost) = crowded.execute("SELECT sum(usages), sum(cost) FROM taximeter.usage_rollups").fetchone()
    assert (usages, str(cost)) == (NAMES + 4, "4.040000000000")
    known = filtered.names(crowded, "acme")
    assert known.more
    assert known.tools == ["chat"]
    assert len(known.models) == rollups.NAMES_MAX
    assert filtered.totals(crowded, "acme", Filter()).usages == NAMES + 4
    assert filtered.totals(crowded, "acme", Filter(tool="chat")).usages == NAMES + 1
    assert filtered.totals(crowded, "acme", Filter(tool="chat", model="model-000")).usages == 2
    assert [row.model for row in filtered.matches(crowded, "acme", Filter(tool="chat", model="model-000"))] == [
        "model-000"
    ] * 2
    assert len(filtered.matches(crowded, "acme", Filter(tool="chat"), Window(limit=1_000))) == NAMES + 1


def test_who_asks_for_a_name_among_the_others_is_told(client, crowded):
    def status(query: str) -> int:
        answers = [client.get(f"{BASE}/{log}?{query}", headers=bearer()) for log in ("usages", "export")]
        assert len({answer.status_code for answer in answers}) == 1
        if answers[0].status_code == 422:
            assert "counted as other names" in answers[0].json()["detail"]
        return answers[0].status_code

    assert status("tool=chat") == status("tool=chat&model=model-000") == status("least=0.01") == 200
    assert status("tool=tool-1") == status("tool=chat&model=model-399") == status("model=model-000") == 422


def test_the_page_says_that_names_are_counted_together(owner, crowded):
    assert "beyond the first 300 pairs" in owner.get("/workspaces/acme/usages").text
    models = owner.get("/workspaces/acme/analysis?by=model&span=day").text
    assert "beyond the first 300 pairs" in models
    body = owner.get(f"{BASE}/analysis?by=model&span=day").json()
    assert body["usages"] == NAMES + 4
    other = {total["name"]: total["usages"] for total in body["totals"]}["other names"]
    assert other == NAMES + 4 - rollups.NAMES_MAX - 1
    assert "\x7f" not in models
    assert "beyond the first 300 pairs" in owner.get("/workspaces/acme/analysis?by=tool&span=day").text


def test_rollups_from_before_the_bound_are_found_and_made_again(conn, monkeypatch):
    booking.book(conn, [make_usage(model=f"model-{n:03d}", cost="0.01") for n in range(2 * rollups.NAMES_MAX + 2)])
    booking.book(conn, [make_usage("other")])
    with monkeypatch.context() as before:
        before.setattr(rollups, "NAMES_MAX", 10**6)
        for workspace_id in ("acme", "other"):
            rollups.advance(conn, workspace_id)
    assert rollups.crowded(conn) == ["acme"]
    seen: list[int] = []
    assert rollups.rebuild(conn, "acme", seen.append) == seen[-1] == 2 * rollups.NAMES_MAX + 2
    assert rollups.crowded(conn) == []
    assert len(filtered.names(conn, "acme").models) == rollups.NAMES_MAX
    assert filtered.totals(conn, "acme", Filter()).usages == 2 * rollups.NAMES_MAX + 2
    (pages,) = conn.execute("SELECT count(*) FROM taximeter.usage_id_pages WHERE workspace_id = 'acme'").fetchone()
    assert pages == 0, "a run of ids is sorted when it is whole"
    assert rollups.rebuild(conn, "nobody") == 0


def test_a_page_with_few_names_says_nothing_of_others(owner, book):
    book(make_usage())
    for path in ("/workspaces/acme/usages", "/workspaces/acme/analysis?by=model&span=day"):
        assert "other names" not in owner.get(path).text
