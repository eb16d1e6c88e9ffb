"""Who spent it: users and tags on the page, in the analysis, the API and the exports, bounded and told."""

from __future__ import annotations

import datetime as dt
import io
import random
from decimal import Decimal

import pytest

from dashboard_factory import bearer, make_usage
from taximeter_db import connect
from taximeter_db.ledger import booking, columns, rollups
from taximeter_db.queries import filtered, labels
from taximeter_db.queries.filtered import Filter

BASE = "/api/v1/workspaces/acme"


@pytest.fixture
def labelled(conn):
    """u-1: 3 usages of 0.01; u-2: 30 of 0.02, of team "b" 20; nobody: 2 of 0.05, of team "a"."""
    booking.book(conn, [make_usage(cost="0.01", user_id="u-1", hold_id="h-1") for _ in range(3)])
    booking.book(conn, [make_usage(cost="0.05", tags={"team": "a"}, tool="search") for _ in range(2)])
    rollups.advance(conn, "acme")
    booking.book(
        conn,
        [
            make_usage(
                cost="0.02", user_id="u-2", tags={"team": "b", "env": "x"} if n < 20 else None, model=f"m-{n % 2}"
            )
            for n in range(30)
        ],
    )
    rollups.advance(conn, "acme")
    return conn


def get(client, path, **query):
    answer = client.get(f"{BASE}/{path}", params=query, headers=bearer())
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_api_shows_user_tags_and_hold(client, labelled):
    newest, *_ = get(client, "usages")["items"]
    assert (newest["user_id"], newest["tags"], newest["hold_id"]) == ("u-2", {}, None)
    oldest, *_ = get(client, "usages", sort="oldest")["items"]
    assert (oldest["user_id"], oldest["tags"], oldest["hold_id"]) == ("u-1", {}, "h-1")
    assert get(client, f"usages/{oldest['event_id']}")["hold_id"] == "h-1"


def test_a_filter_by_user_or_tag_finds_all_and_nothing_else(client, labelled):
    for query, count in (
        ({"user": "u-1"}, 3),
        ({"user": "u-2"}, 30),
        ({"tag": "team=b"}, 20),
        ({"tag": "team=a"}, 2),
        ({"user": "u-2", "tag": "team=b"}, 20),
        ({"user": "u-2", "model": "m-1"}, 15),
        ({"user": "u-1", "tag": "team=a"}, 0),
        ({"user": "nobody"}, 0),
        ({"tag": "team=u-1"}, 0),
        ({"user": "u-2", "least": "0.10"}, 0),
        ({"user": "u-2", "since": "2026-01-01", "until": "2026-01-02"}, 0),
    ):
        seen, cursor = [], ""
        while True:
            page = get(client, "usages", cursor=cursor, limit=7, **query)
            assert page["total"] == count, query
            seen += [item["seq"] for item in page["items"]]
            cursor = page["next"]
            if not cursor:
                break
        assert len(seen) == count, query
        assert seen == sorted(set(seen), reverse=True)
        upwards = get(client, "usages", sort="oldest", limit=100, **query)["items"]
        assert [item["seq"] for item in upwards] == seen[::-1]


def test_a_search_that_stops_on_its_way_goes_on_from_there(labelled, monkeypatch):
    """A rare combination in a log of many stretches: nothing is missed, whatever one look may read."""
    monkeypatch.setattr(rollups, "BLOCK_USAGES", 4)
    monkeypatch.setattr(labels, "STRETCHES_MAX", 2)
    wanted = Filter(user="u-9", tool="rare")
    for run in range(10):
        tools = ["rare" if run in {0, 9} and n == 3 else "chat" for n in range(7)]
        booking.book(labelled, [make_usage(user_id="u-9", tool=tool) for tool in tools])
        rollups.advance(labelled, "acme")
    for newest in (True, False):
        found, bound = [], {}
        for _ in range(100):
            page = filtered.search(labelled, "acme", wanted, filtered.Window(newest=newest, **bound))
            found += page.rows
            if page.place is None:
                break
            bound = {"before" if newest else "after": page.place}
        assert [row.tool for row in found] == ["rare", "rare"]
    totals = filtered.totals(labelled, "acme", wanted)
    assert (totals.more, totals.cost) == (True, None)
    assert filtered.totals(labelled, "acme", wanted, exactly=True).usages == 2


def test_the_analysis_splits_by_user_and_by_tag(client, labelled):
    whole = get(client, "analysis", span="day")
    for query, expected in (
        ({"by": "user"}, {"u-2": (30, "0.6"), "no user": (2, "0.1"), "u-1": (3, "0.03")}),
        ({"by": "tag", "tag": "team"}, {"b": (20, "0.4"), "a": (2, "0.1"), "no tag": (13, "0.23")}),
        ({"by": "tag", "tag": "env"}, {"x": (20, "0.4"), "no tag": (15, "0.33")}),
        ({"by": "tag", "tag": "unknown"}, {"no tag": (35, "0.73")}),
    ):
        found = get(client, "analysis", span="day", **query)
        assert {one["name"]: (one["usages"], one["cost"]) for one in found["totals"]} == expected
        assert (found["usages"], found["cost"], found["cost_before"]) == (35, "0.73", None)
        assert [one["cost"] for one in found["periods"]] == [one["cost"] for one in whole["periods"]]
        for period in found["periods"]:
            assert sum(map(Decimal, period["costs"].values())) == Decimal(period["cost"])
    assert client.get(f"{BASE}/analysis?by=tag", headers=bearer()).status_code == 422


def test_every_label_of_the_list_is_on_the_page_in_the_api_and_in_exports(owner, client, conn):
    texts = {name: f"its {name}" for name in columns.LABELS}
    given = {name: {"team": text} if columns.LABELS[name] == "json" else text for name, text in texts.items()}
    booking.book(conn, [make_usage(**given)])
    details = owner.get("/workspaces/acme/usages/1").text
    (item,) = get(client, "usages")["items"]
    (_, row) = client.get(f"{BASE}/export", headers=bearer()).text.splitlines()
    for name, text in texts.items():
        assert text in details
        assert item[name] == given[name]
        assert text in row


def test_the_page_filters_and_splits_by_what_there_is(owner, labelled):
    page = owner.get("/workspaces/acme/usages").text
    assert 'id="f-user"' in page
    assert 'id="f-tag"' in page
    assert "3 usages" in owner.get("/workspaces/acme/usages?user=u-1").text
    details = owner.get("/workspaces/acme/usages/1").text
    assert "u-1" in details
    assert "h-1" in details
    assert "tag=team%3Da" in owner.get("/workspaces/acme/usages/4").text
    analysis = owner.get("/workspaces/acme/analysis?by=tag&tag=team&span=day").text
    assert "By tag team" in analysis
    assert "Which tag team values" in analysis
    assert "no user" in owner.get("/workspaces/acme/analysis?by=user&span=day").text


def test_a_workspace_without_labels_is_offered_none(owner, conn):
    booking.book(conn, [make_usage()])
    rollups.advance(conn, "acme")
    page = owner.get("/workspaces/acme/usages").text
    assert 'id="f-user"' not in page
    assert 'id="f-tag"' not in page
    assert "By user" not in owner.get("/workspaces/acme/analysis").text
    assert conn.execute("SELECT count(*) FROM taximeter.label_totals").fetchone() == (0,)


def test_users_and_tags_beyond_the_bound_count_together_and_are_told(owner, client, conn, monkeypatch):
    monkeypatch.setattr(rollups, "VALUES_MAX", 5)
    monkeypatch.setattr(rollups, "LABELS_MAX", 3)
    for batch in range(2):
        booking.book(conn, [make_usage(user_id=f"u-{batch}{n}", cost="0.01") for n in range(4)])
        rollups.advance(conn, "acme")
    booking.book(conn, [make_usage(tags={f"key-{n}": "x", "team": "a"}, cost="0.01") for n in range(9)])
    rollups.advance(conn, "acme")
    found = get(client, "analysis", by="user", span="day")
    assert {one["name"]: one["usages"] for one in found["totals"]}["other names"] == 3
    assert sum(one["usages"] for one in found["totals"]) == 17
    assert "are counted as other names" in owner.get("/workspaces/acme/analysis?by=user&span=day").text
    assert "only the first 49 keys of tags" in owner.get("/workspaces/acme/analysis").text
    rows = conn.execute("SELECT count(*) FROM taximeter.label_totals").fetchone()[0]
    assert rows <= 3 * (5 + 2) + 1
    assert get(client, "usages", user="u-00")["total"] == 1
    for query in ("user=u-13", "tag=key-8%3Dx"):
        for log in ("usages", "export"):
            answer = client.get(f"{BASE}/{log}?{query}", headers=bearer())
            assert answer.status_code == 422
            assert "counted together" in answer.json()["detail"]


def test_labels_of_usages_that_the_release_before_rolled_up_are_not_lost(client, conn):
    """It moves `seq` alone. Usages that were booked meanwhile, labels and all, are caught up with."""
    booking.book(conn, [make_usage(cost="0.01")])
    conn.execute("INSERT INTO taximeter.rollup_progress (workspace_id, seq) VALUES ('acme', 1)")
    booking.book(conn, [make_usage(cost="0.01", user_id="u-1") for _ in range(3)])
    rollups.advance(conn, "acme")
    assert get(client, "usages", user="u-1")["total"] == 3
    booking.book(conn, [make_usage(cost="0.01", user_id="u-1")])
    conn.execute("UPDATE taximeter.rollup_progress SET seq = 5")
    assert rollups.behind(conn) == ["acme"]
    assert rollups.follow(conn, "acme", 1_000) == (5, 5)
    assert get(client, "usages", user="u-1")["total"] == 4


def test_exports_have_user_tags_and_hold(client, labelled):
    text = client.get(f"{BASE}/export?user=u-1", headers=bearer()).text
    head, *rows = text.splitlines()
    assert head.endswith(",price_version,user_id,tags,hold_id,estimated")
    assert [row.split(",")[-4:] for row in rows] == [["u-1", "", "h-1", "false"]] * 3
    assert len(client.get(f"{BASE}/export?tag=team%3Db", headers=bearer()).text.splitlines()) == 21


def test_a_parquet_export_has_user_tags_and_hold(client, labelled):
    parquet = pytest.importorskip("pyarrow.parquet")
    body = client.get(f"{BASE}/export?format=parquet&tag=team%3Db", headers=bearer()).content
    rows = parquet.read_table(io.BytesIO(body)).to_pylist()
    assert len(rows) == 20
    assert {(row["user_id"], row["tags"], row["hold_id"]) for row in rows} == {("u-2", '{"env":"x","team":"b"}', None)}


def test_a_tag_never_begins_a_formula_in_a_spreadsheet(client, conn):
    booking.book(conn, [make_usage(user_id="=1+1", tags={"a": ";=1+1"})])
    (_, row) = client.get(f"{BASE}/export", headers=bearer()).text.splitlines()
    assert "'=1+1" in row
    assert ";'=1+1" in row


def test_another_workspaces_labels_are_not_seen(database_url, labelled):
    booking.book(labelled, [make_usage("other", user_id="u-1", tags={"secret": "x"})])
    rollups.advance(labelled, "other")
    with connect.connection(database_url) as conn:
        assert labels.of(conn, "acme").tags == ("env", "team")
        assert filtered.totals(conn, "acme", Filter(user="u-1")).usages == 3


@pytest.mark.parametrize("seed", range(5))
def test_the_largest_are_found_without_looking_up_every_value(conn, monkeypatch, seed):
    """However totals and what was spent lately differ: the same as by looking up every value."""
    monkeypatch.setattr(labels, "LOOKED_UP_FIRST", 2)
    monkeypatch.setattr(labels, "LOOKED_UP_TIMES", 2)
    dice = random.Random(seed)
    spent = {f"u-{number}": (dice.choice([0, 1, dice.randrange(100)]), dice.randrange(20)) for number in range(40)}
    old, since = dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.datetime(2026, 2, 1, tzinfo=dt.UTC)
    for value, (before, after) in spent.items():
        first, last = old if before else since, since if after else old
        conn.execute(
            "INSERT INTO taximeter.label_totals (workspace_id, label, value, usages, cost, first_slot, last_slot)"
            " VALUES ('acme', 'user', %s, 2, %s, %s, %s)",
            [value, before + after, first, last],
        )
        for slot, total in ((old, before), (since, before + after)):
            conn.execute(
                "INSERT INTO taximeter.label_rollups (workspace_id, label, value, slot, block, usages_total, cost_total,"
                " first_seq, last_seq) VALUES ('acme', 'user', %s, %s, 0, 1, %s, 1, 2)",
                [value, slot, total],
            )
    lately = sorted((value for value in spent if spent[value][1]), key=lambda value: (-spent[value][1], value))
    for limit in (1, 5, 50):
        assert labels.largest(conn, "acme", "user", since, limit) == lately[:limit]
