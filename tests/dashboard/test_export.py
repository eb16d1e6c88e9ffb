"""The export is the list, exact and harmless in a spreadsheet."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from decimal import Decimal

import httpx2
import psycopg
import pytest

from dashboard_factory import bearer, make_payment, make_settings, make_usage
from servers.pages import serve
from taximeter_dashboard.app import create_app
from taximeter_dashboard.export import estimate, formats
from taximeter_db.ledger import booking
from taximeter_db.queries import copying

URL = "/workspaces/acme/export.csv"


def _read(answer) -> list[dict[str, str]]:
    assert answer.status_code == 200
    return list(csv.DictReader(answer.text.splitlines()))


def test_everything_in_order_and_exact(client, conn):
    for _ in range(3):
        booking.book(conn, [make_usage(cost="0.0000305") for _ in range(850)])
    rows = _read(client.get(URL, headers=bearer()))
    assert [int(row["seq"]) for row in rows] == list(range(2550, 0, -1))
    assert {row["cost_usd"] for row in rows} == {"0.0000305"}
    assert rows[0]["balance_after_usd"] == "-0.077775"
    rows = _read(client.get(f"{URL}?sort=oldest", headers=bearer()))
    assert [int(row["seq"]) for row in rows] == list(range(1, 2551))


def test_as_filtered(client, conn):
    booking.book(conn, [make_usage(tool="a" if n % 3 else "b") for n in range(2400)])
    for sort in ("newest", "oldest"):
        rows = _read(client.get(f"{URL}?tool=a&sort={sort}", headers=bearer()))
        assert [row["tool"] for row in rows] == ["a"] * 1600
    rows = _read(client.get(f"{URL}?tool=none", headers=bearer()))
    assert rows == []


def test_formulas_are_harmless(client, book):
    evil = [
        '=HYPERLINK("http://x")',
        "+1",
        "-1",
        "@x",
        "\t=1",
        "a;=1",
        "a|-1\n+2",
        "\uff1d1",
        "plain-text, 1+1",
        ";",
        "",
    ]
    book(*(make_usage(event_id=f"-{n}", tool=text or "none", model=text) for n, text in enumerate(evil)))
    book(make_payment(note="=1+1", transaction={"provider": "@x", "reference": "+1"}))
    answer = client.get(f"{URL}?sort=oldest", headers=bearer())
    rows = list(csv.DictReader(io.StringIO(answer.content.decode(), newline="")))
    expected = ["'" + text for text in evil[:4]]
    expected += ["'\t'=1", "a;'=1", "a|'-1\n'+2", "'\uff1d1", "plain-text, 1+1", ";", ""]
    assert [row["model"] for row in rows] == expected
    assert [row["event_id"] for row in rows] == [f"'-{n}" for n in range(len(evil))]
    assert rows[0]["balance_after_usd"].startswith("-0.")
    (paid,) = _read(client.get(f"{URL}?log=payments", headers=bearer()))
    assert [paid[name] for name in ("note", "transaction_provider", "transaction_reference")] == ["'=1+1", "'@x", "'+1"]
    assert paid["amount_usd"] == "25"


def test_parquet_is_the_same_and_exact(client, conn, monkeypatch):
    import pyarrow.parquet as pq

    monkeypatch.setattr(copying, "WINDOW_ROWS", 30)
    monkeypatch.setattr(formats, "GROUP_ROWS", 70)
    odd = make_usage(
        tool='a "b"\n=c', model=None, provider="", cost="0.000000000001", quantities={"seconds": Decimal("0.5")}
    )
    booking.book(conn, [odd, *(make_usage(cost="0.0000305") for _ in range(199))])
    url = "/workspaces/acme/export.parquet"
    answer = client.get(f"{url}?sort=oldest", headers=bearer())
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    file = pq.ParquetFile(io.BytesIO(answer.content))
    assert file.num_row_groups == 3
    table = file.read()
    assert str(table.schema.field("cost_usd").type) == "decimal128(27, 12)"
    rows = table.to_pylist()
    assert [row["seq"] for row in rows] == list(range(1, 201))
    assert (rows[0]["tool"], rows[0]["model"], rows[0]["provider"]) == ('a "b"\n=c', None, "")
    assert rows[0]["cost_usd"] == Decimal("0.000000000001")
    assert json.loads(rows[0]["quantities"]) == {"seconds": 0.5}
    assert sum(row["cost_usd"] for row in rows) == -rows[-1]["balance_after_usd"]
    assert rows[0]["recorded_at"].utcoffset() == dt.timedelta()
    assert pq.read_table(io.BytesIO(client.get(f"{url}?tool=none", headers=bearer()).content)).num_rows == 0
    assert pq.read_table(io.BytesIO(client.get(f"{url}?log=payments", headers=bearer()).content)).num_rows == 0


def test_without_the_extra_parquet_is_said_to_be_missing(client, book, monkeypatch):
    book(make_usage())
    monkeypatch.setattr(formats, "formats", lambda: ("csv",))
    answer = client.get("/api/v1/workspaces/acme/export?format=parquet", headers=bearer())
    assert answer.status_code == 501
    assert "taximeter[parquet]" in answer.json()["detail"]


def test_few_matches_are_found_without_reading_all_between(client, conn, monkeypatch):
    monkeypatch.setattr(copying, "WINDOW_ROWS", 10)
    seen = []
    read = copying.window
    monkeypatch.setattr(copying, "window", lambda *args, **more: seen.append(args[4:6]) or read(*args, **more))
    booking.book(conn, [make_usage(tool="rare" if n in {7, 400, 1500} else "chat") for n in range(2_000)])
    for sort in ("newest", "oldest"):
        rows = _read(client.get(f"{URL}?tool=rare&sort={sort}", headers=bearer()))
        assert sorted(int(row["seq"]) for row in rows) == [8, 401, 1501]
    assert len(seen) < 20


def test_progress_is_written_down_and_a_ticket_serves_once(client, conn, book):
    book(*(make_usage() for _ in range(3)))
    client.get(f"{URL}?ticket=t-1&tool=chat", headers=bearer())
    path = "/workspaces/acme/exports/t-1"
    assert client.get(path, headers=bearer()).json() == {"state": "done", "done": 3, "total": 3}
    assert client.get("/workspaces/acme/exports/t-2", headers=bearer()).json()["state"] == "waiting"
    assert client.get(f"{URL}?ticket=t-1", headers=bearer()).status_code == 409
    assert client.post(f"{path}/cancel", headers=bearer()).status_code == 404
    log = conn.execute("SELECT begun_by, log, format, filter, state FROM taximeter.exports").fetchall()
    assert log == [("u-1", "usages", "csv", "tool=chat", "done")]


def test_a_broken_stream_is_no_short_file(database_url, conn, monkeypatch):
    """Over a real socket: cancelled, or with the database gone, the download fails; it never ends like a whole file."""
    monkeypatch.setattr(copying, "WINDOW_ROWS", 20)
    booking.book(conn, [make_usage() for _ in range(200)])
    app = create_app(make_settings(database_url))
    windows = copying.window
    with serve(app) as url, httpx2.Client(base_url=url, headers=bearer(), timeout=20) as http:

        def broken(why):
            def window(*args, **more):
                if args[4] < 100:
                    why()
                return windows(*args, **more)

            monkeypatch.setattr(copying, "window", window)

        def fail():
            raise psycopg.OperationalError("gone")

        for kind in ("csv", "parquet"):
            broken(fail)
            with pytest.raises(httpx2.RemoteProtocolError):
                http.get(f"/workspaces/acme/export.{kind}?ticket=fail-{kind}")
            broken(lambda: http.post(f"/workspaces/acme/exports/off-{kind}/cancel"))  # noqa: B023 - called at once
            with pytest.raises(httpx2.RemoteProtocolError):
                http.get(f"/workspaces/acme/export.{kind}?ticket=off-{kind}")
    states = dict(conn.execute("SELECT ticket, state FROM taximeter.exports").fetchall())
    assert states == {f"fail-{kind}": "failed" for kind in ("csv", "parquet")} | {
        f"off-{kind}": "cancelled" for kind in ("csv", "parquet")
    }


def test_another_workspace_is_404(client, book):
    book(make_usage("other"))
    assert client.get("/workspaces/other/export.csv", headers=bearer()).status_code == 404
    assert client.get(f"{URL}?least=7", headers=bearer()).status_code == 422


@pytest.mark.parametrize(
    ("count", "text"),
    [(999, "999 bytes"), (1_000, "1.0 kB"), (480_400, "480 kB"), (1_940_000_000, "1.9 GB"), (12 * 10**12, "12,000 GB")],
)
def test_sizes(count: int, text: str):
    assert estimate.size(count) == text


def test_the_page_says_what_an_export_would_give(client, book):
    book(*(make_usage(tool=f"t{n % 2}") for n in range(30)), make_payment())
    text = client.get("/workspaces/acme/usages?tool=t1", headers=bearer()).text
    assert 'href="/workspaces/acme/export.csv?log=usages&amp;tool=t1"' in text
    assert "15 rows as filtered · about" in text
    text = client.get("/workspaces/acme/payments?sort=oldest", headers=bearer()).text
    assert 'href="/workspaces/acme/export.parquet?log=payments&amp;sort=oldest"' in text
    assert "1 row · about" in text


@pytest.mark.parametrize("log", ["usages", "payments"])
def test_a_csv_begins_with_a_byte_order_mark_by_choice(owner, book, log):
    """Spreadsheets that see none take UTF-8 for the code page of their country."""
    book(make_payment(note="Überweisung 模型"), make_usage(tool="Übersetzer", model="模型", cost="0.01"))
    for path in ("/workspaces/acme/export.csv?", "/api/v1/workspaces/acme/export?format=csv&"):
        plain = owner.get(f"{path}log={log}").content
        marked = owner.get(f"{path}log={log}&bom=1").content
        assert marked == b"\xef\xbb\xbf" + plain
        assert plain.startswith(b"seq,")
        assert "模型" in marked.decode("utf-8-sig")
        assert owner.get(f"{path}log={log}&bom=2").status_code == 422
    assert b"data-export-bom" in owner.get(f"/workspaces/acme/{log}").content


def test_parquet_has_no_byte_order_mark(owner, book):
    pytest.importorskip("pyarrow")
    book(make_usage())
    assert owner.get("/workspaces/acme/export.parquet?bom=1").content.startswith(b"PAR1")
