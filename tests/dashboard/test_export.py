"""The export is the list, exact and harmless in a spreadsheet."""

from __future__ import annotations

import csv

from dashboard_factory import bearer, make_usage
from taximeter_db import ledger

URL = "/workspaces/acme/export.csv"


def _read(answer) -> list[dict[str, str]]:
    assert answer.status_code == 200
    return list(csv.DictReader(answer.text.splitlines()))


def test_everything_in_order_and_exact(client, conn):
    for _ in range(3):
        ledger.book(conn, [make_usage(cost="0.0000305") for _ in range(850)])
    rows = _read(client.get(URL, headers=bearer()))
    assert [int(row["seq"]) for row in rows] == list(range(2550, 0, -1))
    assert {row["cost_usd"] for row in rows} == {"0.0000305"}
    assert rows[0]["balance_after_usd"] == "-0.077775"
    rows = _read(client.get(f"{URL}?sort=oldest", headers=bearer()))
    assert [int(row["seq"]) for row in rows] == list(range(1, 2551))


def test_as_filtered(client, conn):
    ledger.book(conn, [make_usage(tool="a" if n % 3 else "b") for n in range(2400)])
    for sort in ("newest", "oldest"):
        rows = _read(client.get(f"{URL}?tool=a&sort={sort}", headers=bearer()))
        assert [row["tool"] for row in rows] == ["a"] * 1600
    rows = _read(client.get(f"{URL}?tool=none", headers=bearer()))
    assert rows == []


def test_formulas_are_harmless(client, book):
    evil = ['=HYPERLINK("http://x")', "+1", "-1", "@x", "plain"]
    book(*(make_usage(event_id=f"{text}{n}", tool=text, model=text) for n, text in enumerate(evil)))
    rows = _read(client.get(f"{URL}?sort=oldest", headers=bearer()))
    assert [row["tool"] for row in rows] == [f"'{text}" for text in evil[:-1]] + ["plain"]
    assert all(not row[name].startswith(("=", "+", "-", "@")) for row in rows for name in ("event_id", "tool", "model"))
    assert rows[0]["balance_after_usd"].startswith("-0.")


def test_another_workspace_is_404(client, book):
    book(make_usage("other"))
    assert client.get("/workspaces/other/export.csv", headers=bearer()).status_code == 404
    assert client.get(f"{URL}?least=7", headers=bearer()).status_code == 422
