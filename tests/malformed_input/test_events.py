"""Every row of the list of malformed input, 1 to 50, through a real broker and a real worker, the HTTP API or the command line.

Rows that are an event or a message alone are in cases.py and run by `test_refused`; every other row is a function here or in
test_requests.py (`test_row_NN_…`). tests/conventions/test_malformed_input_list.py counts them.
"""

from __future__ import annotations

import csv
import io
import re
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from dashboard_factory import make_settings, make_token
from malformed_input.cases import BATCH, EVENTS, MARK, Case, dump, good, paid
from malformed_input.system_under_test import SystemUnderTest, set_prices
from servers.databases import drop_database, make_database, migrated_template
from taximeter import InvalidEventError, Meter
from taximeter.quantities import openai_chat
from taximeter_cli.embedded.process import free_port
from taximeter_cli.embedded.valkey import BROKER_DATABASE, FLAG_DATABASE
from taximeter_cli.receipts import Receipts
from taximeter_dashboard.app import create_app
from taximeter_db.audit.verify import verify
from taximeter_db.connect import connection
from taximeter_db.crypto.payload_crypto import decode
from taximeter_db.prices.changes import set_price
from taximeter_db.prices.store import Price, Target
from taximeter_worker.runtime import Runtime
from taximeter_worker.settings import Settings
from waiting import eventually
from workers import Feed, WorkerProcess

FINGERPRINT = r"\b[0-9a-f]{32}\b"


@pytest.fixture(scope="module")
def system(postgres, shared_valkey, shared_rabbitmq) -> Iterator[SystemUnderTest]:
    database, vhost = make_database(postgres, migrated_template(postgres)), shared_rabbitmq.make_vhost()
    url, broker_url = postgres.url(database), shared_rabbitmq.url(vhost)
    set_prices(url)
    settings = {
        "TAXIMETER_DATABASE_URL": url,
        "TAXIMETER_BROKER_URL": broker_url,
        "TAXIMETER_REDIS_URL": shared_valkey.url(FLAG_DATABASE),
        "TAXIMETER_METRICS_PORT": str(free_port()),
    }
    with tempfile.TemporaryDirectory() as folder:
        worker = WorkerProcess({**_environment(), **settings}, Path(folder) / "worker.log")
        worker.options[0] = "--loglevel=DEBUG"  # the most that an operator can ask for must not say more than is good
        logs = [worker.log, postgres.log, shared_valkey.log, *(shared_rabbitmq.folder / "logs").glob("*")]
        made = SystemUnderTest(url, broker_url, worker, logs)
        for case in EVENTS:
            made.publish_case(case)
        worker.start()
        yield made
        made.close()
        worker.kill()
    shared_rabbitmq.drop_vhost(vhost)
    drop_database(postgres, database)


def _environment() -> dict[str, str]:
    import os

    return {name: value for name, value in os.environ.items() if not name.startswith("TAXIMETER_")}


@pytest.mark.parametrize("case", EVENTS, ids=lambda case: f"{case.row:02d} {case.name}")
def test_refused(system: SystemUnderTest, case: Case):
    """The right code, a helpful sentence, kept whole, neighbours booked."""
    entry = system.kept(case.kept)
    assert entry.reason == case.reason
    assert re.search(case.says, entry.detail), entry.detail
    assert MARK not in entry.detail
    assert entry.detail.isprintable()
    if case.is_payment:
        assert system.booked(case.workspace, payments=2).balance == 2
    else:
        assert system.booked(case.workspace, usages=2).balance == Decimal("-0.004")


def test_row_04_what_came_whole_before_the_cut_is_booked(system: SystemUnderTest):
    body = dump([good("row-04", 1), good("row-04", 2), good("row-04", 3)])[:-40]
    system.publish(body, BATCH)
    assert system.booked("row-04", 2).balance == Decimal("-0.004")
    start = body.index(b"row-04-3") - len(b'{"specversion": "1.0", "id": "')
    entry = system.kept(body[start:])
    assert (entry.reason, f"byte {start} of {len(body)}" in entry.detail) == ("bad_json", True)


def test_row_11_an_empty_batch_books_nothing(system: SystemUnderTest):
    system.publish(b" [ ]\n", BATCH)
    system.send(good("row-11", 1))
    system.booked("row-11", 1)
    assert system.one("SELECT count(*) FROM taximeter.quarantine WHERE event IN ('[]', ' [ ]\n')") == 0


def test_row_12_one_bad_event_of_a_thousand(system: SystemUnderTest):
    events = [good("row-12", number) for number in range(1000)]
    events[617]["data"]["quantities"] = {"input_tokens": -1}
    system.send(*events)
    assert system.booked("row-12", 999).balance == Decimal("-1.998")
    [entry] = system.refused("row-12")
    assert (entry.event_id, entry.reason) == ("row-12-617", "negative_quantity")


def test_row_17_same_id_same_content_is_counted_not_charged(system: SystemUnderTest):
    event = good("row-17", 1)
    system.send(event)
    system.booked("row-17", 1)
    again = dump({**event, "time": datetime.now(UTC).isoformat(), "data": dict(reversed(event["data"].items()))})
    system.send(again)
    eventually(lambda: system.workspace("row-17").duplicate_count == 1)
    assert system.booked("row-17", 1).balance == Decimal("-0.002")
    payment = paid("row-17", 2)
    system.send(payment, payment=True)
    system.booked("row-17", 1, payments=1)
    system.send({**payment, "source": "/another"}, paid("row-17", 3), payment=True)
    assert system.booked("row-17", 1, payments=2).balance == Decimal("1.998")
    assert system.refused("row-17") == []


def test_row_18_same_id_other_content_shows_both_fingerprints(system: SystemUnderTest):
    system.send(good("row-18", 1))
    system.booked("row-18", 1)
    other = dump(good("row-18", 1, quantities={"input_tokens": 7}))
    system.send(other, good("row-18", 2))
    entry = system.kept(other)
    assert entry.reason == "id_conflict"
    assert len(set(re.findall(FINGERPRINT, entry.detail))) == 2
    assert MARK not in entry.detail
    assert system.booked("row-18", 2).balance == Decimal("-0.004")


def test_row_19_the_same_id_twice_in_one_message(system: SystemUnderTest):
    first, other = good("row-19", 1), good("row-19", 1, model="tiny")
    system.send(first, other, first, good("row-19", 2))
    row = system.booked("row-19", 2)
    assert (row.balance, row.duplicate_count) == (Decimal("-0.004"), 1)
    [entry] = system.refused("row-19")
    assert (entry.reason, bytes(entry.event)) == ("id_conflict", dump(other))
    assert len(set(re.findall(FINGERPRINT, entry.detail))) == 2
    assert MARK not in entry.detail


def test_row_20_the_same_id_in_two_workspaces(system: SystemUnderTest):
    one, two = good("row-20-a", 1), {**good("row-20-b", 1), "id": "row-20-a-1"}
    system.send(one, two)
    assert system.booked("row-20-a", 1).duplicate_count == system.booked("row-20-b", 1).duplicate_count == 0
    system.send(paid("row-20-a", 2), {**paid("row-20-b", 2), "id": "row-20-a-2"}, payment=True)
    assert system.booked("row-20-a", 1, payments=1).balance == system.booked("row-20-b", 1, payments=1).balance


def test_row_22_an_unknown_workspace_where_they_are_quarantined(system: SystemUnderTest, valkey):
    broker_url = valkey.url(BROKER_DATABASE)
    settings = Settings(
        database_url=system.database_url,
        broker_url=broker_url,
        redis_url=valkey.url(FLAG_DATABASE),
        metrics_port=0,
        unknown_workspace="quarantine",
        drain_seconds=5.0,
    )
    system.send(good("row-22-known", 1))
    system.booked("row-22-known", 1)
    runtime, feed = Runtime(settings, lambda: None), Feed(broker_url)
    runtime.start()
    try:
        bad = good("row-22", 1)
        feed.send(good("row-22-known", 2), bad, good("row-22-known", 3))
        entry = system.kept(dump(bad))
        assert entry.reason == "unknown_workspace"
        assert "taximeter workspace set row-22" in entry.detail
        system.booked("row-22-known", 3)
        payment = paid("row-22", 2)
        feed.pay(payment, paid("row-22-known", 4))
        assert system.kept(dump(payment)).reason == "unknown_workspace"
        system.booked("row-22-known", 3, payments=1)
        assert system.workspace("row-22") is None
    finally:
        feed.close()
        runtime.stop()


def test_row_23_books_itself_once_a_price_is_set(system: SystemUnderTest):
    bad = good("row-23", 1, model="priced-later")
    system.send(bad, good("row-23", 2))
    entry = system.kept(dump(bad))
    assert (entry.reason, system.booked("row-23", 1).balance) == ("price_missing", Decimal("-0.002"))
    with connection(system.database_url) as conn:
        target = Target(None, "p", "priced-later")
        set_price(conn, Price(target=target, unit="input_tokens", amount=Decimal(5), per=Decimal(1_000_000)))
    assert system.booked("row-23", 2).balance == Decimal("-0.007")
    assert system.one("SELECT resolution FROM taximeter.quarantine WHERE id = %s", entry.id) == "replayed"


@pytest.mark.parametrize(
    ("tokens", "cost"), [(1, 0), (2, 1), (3, 2), (5, 2), (7, 4)], ids=["0.5", "1", "1.5", "2.5", "3.5"]
)
def test_row_30_a_cost_below_a_picodollar_is_rounded_half_even(system: SystemUnderTest, tokens: int, cost: int):
    workspace = f"row-30-{tokens}"
    system.send(good(workspace, 1, model="tiny", quantities={"input_tokens": tokens}))
    assert system.booked(workspace, 1).usage_cost == Decimal(cost).scaleb(-12)


def test_row_31_a_balance_beyond_the_column_books_nothing_by_halves(system: SystemUnderTest):
    brim = "999999999999999.5"
    second = paid("row-31", 2, brim)
    system.send(paid("row-31", 1, brim), second, paid("row-31-b", 1, "3"), payment=True)
    entry = system.kept(dump(second))
    assert entry.reason == "out_of_range"
    assert "10^15" in entry.detail
    assert system.booked("row-31", payments=1).balance == Decimal(brim)
    assert system.booked("row-31-b", payments=1).balance == 3


def test_row_31_a_usage_beyond_the_balance_books_nothing_by_halves(system: SystemUnderTest):
    dear = {"model": "dear", "quantities": {"input_tokens": 900}}
    second = good("row-31-c", 2, **dear)
    system.send(good("row-31-c", 1, **dear), second, good("row-31-d", 1))
    entry = system.kept(dump(second))
    assert (entry.reason, entry.event_id) == ("out_of_range", "row-31-c-2")
    assert "10^15" in entry.detail
    assert MARK not in entry.detail
    assert system.booked("row-31-c", 1).balance == -900 * 10**12
    assert system.booked("row-31-d", 1).balance == Decimal("-0.002")
    for table in ("usage_keys", "usage_log", "usage_payloads"):  # its id stays free, for when the price is put right
        assert system.one(f"SELECT count(*) FROM taximeter.{table} WHERE workspace_id = 'row-31-c'") == 1, table


def test_row_32_overlapping_counts_of_a_provider_are_refused_before_anything_is_recorded(
    system: SystemUnderTest, tmp_path: Path
):
    with Meter(broker_url=system.broker_url, spool=tmp_path / "spool", source="/tests") as meter:

        def record(cached: int) -> None:
            usage = {"prompt_tokens": 1000, "prompt_tokens_details": {"cached_tokens": cached}, "completion_tokens": 0}
            meter.record("row-32", tool="chat", provider="p", model="m", quantities=openai_chat(usage), input=MARK)

        record(400)
        with pytest.raises(
            InvalidEventError, match=r"prompt_tokens: is 1000, less than .*cached_tokens \(1001\)"
        ) as bad:
            record(1001)
        assert (bad.value.code, meter.stats().recorded) == ("bad_quantities", 1)
        record(1000)
        meter.flush(timeout=30)
    assert system.booked("row-32", 2).balance == Decimal("-0.004")  # a cached token was charged once
    assert system.refused("row-32") == []
    query = "SELECT quantities FROM taximeter.usage_log WHERE workspace_id = 'row-32' ORDER BY seq"
    pools = [{"input_tokens": 600, "cached_input_tokens": 400}, {"cached_input_tokens": 1000}]
    assert [row.quantities for row in system.conn.execute(query)] == pools


def test_row_36_a_late_event_has_the_price_of_its_own_time(system: SystemUnderTest):
    before = datetime.now(UTC)
    system.send({**good("row-36", 1), "time": "1999-12-31T23:59:59.123456+05:30"})
    assert system.booked("row-36", 1).balance == Decimal("-0.001")  # half of what it costs since 2020
    query = "SELECT occurred_at, recorded_at FROM taximeter.usage_log WHERE workspace_id = 'row-36'"
    occurred_at, recorded_at = system.conn.execute(query).fetchone()
    assert occurred_at == datetime(1999, 12, 31, 18, 29, 59, 123456, tzinfo=UTC)
    assert recorded_at >= before


@pytest.mark.parametrize(
    ("workspace", "text"), [("row-37-nul", "a\0b"), ("row-38-surrogate", "a\ud800b"), ("row-37-38", "\udfff\ud800\0")]
)
def test_row_37_and_row_38_text_of_the_payload_is_kept_exactly(system: SystemUnderTest, workspace: str, text: str):
    given = {"input": text, "output": {text: [text, 1.10]}, "metadata": {"x": text}}
    system.send(good(workspace, 1, **given))
    system.booked(workspace, 1)
    query = "SELECT codec, payload FROM taximeter.usage_payloads WHERE workspace_id = %s"
    codec, stored = system.conn.execute(query, [workspace]).fetchone()
    assert decode(
        codec, bytes(stored), workspace, f"{workspace}-1", None
    ) == b'{"input":%b,"output":%b,"metadata":%b}' % tuple(dump(value) for value in given.values())


@pytest.fixture
def page(system: SystemUnderTest) -> Iterator[TestClient]:
    """The dashboard on the same database, for whoever owns the workspaces asked for."""
    settings = make_settings(system.database_url)
    with TestClient(create_app(settings, Receipts()), base_url="http://dash.example", follow_redirects=False) as client:
        owns = ["row-39", "row-40"]
        client.headers["authorization"] = f"Bearer {make_token(workspaces=owns)}"
        yield client


def test_row_39_markup_is_shown_as_text_everywhere(system: SystemUnderTest, page: TestClient):
    image = "<img src=x onerror=alert(1)>"
    said = {"tool": image, "input": image, "output": [{"role": image, "content": image}], "metadata": {image: image}}
    usage = {**good("row-39", 1, **said), "id": image}
    payment = {**paid("row-39", 1, note=image, transaction={"provider": image, image: image}), "id": image}
    system.send(usage)
    system.send(payment, payment=True)
    system.booked("row-39", 1, payments=1)
    base = "/workspaces/row-39"
    shown = 0
    for path in (
        "",
        "/usages/1",
        "/payments",
        "/payments/1",
        "/analysis",
        "/settings",
        f"?tool={quote(image)}",
        "?event=x",
    ):
        for headers in ({}, {"hx-request": "true"}, {"x-taximeter-part": "details"}):
            answer = page.get(base + path, headers=headers)
            assert answer.status_code == 200, path
            assert answer.headers["content-type"].startswith("text/html")
            assert "<img src=x" not in answer.text
            assert "script-src 'self'" in answer.headers["content-security-policy"]
            shown += answer.text.count("&lt;img src=x")
    assert shown > 20
    for path in (f"/api/v1{base}/usages", f"/api/v1{base}/payments", f"{base}/usages/1/contents.json"):
        answer = page.get(path)
        assert (answer.headers["content-type"], answer.headers["x-content-type-options"]) == (
            "application/json",
            "nosniff",
        )


FORMULAS = {
    "=HYPERLINK(A1)": "'=HYPERLINK(A1)",
    "+1": "'+1",
    "-1": "'-1",
    "@SUM(A1)": "'@SUM(A1)",
    "=cmd|' /C calc'!A0": "'=cmd|' /C calc'!A0",
    "\t=1": "'\t'=1",
    "\r\n=1": "'\r'\n'=1",
    "\uff1d1": "'\uff1d1",
    "a;=1": "a;'=1",
    'plain, "quoted" text - 1=1': 'plain, "quoted" text - 1=1',
}


def test_row_40_a_formula_is_neutralised_in_csv(system: SystemUnderTest, page: TestClient):
    events = [good("row-40", number, tool=text) for number, text in enumerate(FORMULAS)]
    system.send(*events, {**good("row-40", "x"), "id": "=1#"}, {**good("row-40", "y"), "id": "a;+1"})
    system.booked("row-40", len(FORMULAS) + 2)
    answer = page.get("/workspaces/row-40/export.csv?sort=oldest")
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert [row["tool"] for row in rows[:-2]] == list(FORMULAS.values())
    assert [row["event_id"] for row in rows[-2:]] == ["'=1#", "a;'+1"]


def test_nothing_sensitive_in_any_log_and_no_worker_stopped_restarted_or_looped(system: SystemUnderTest):
    """Last, so that every row has passed."""
    system.send(good("the-end", 1))
    system.booked("the-end", 1)
    eventually(lambda: system.worker.metrics()["taximeter_held_messages"] == 0, what="an idle worker")
    log = system.logs()
    assert "broker_connected" in log
    assert MARK not in log
    assert "Traceback" not in log
    assert system.worker.running
    assert system.worker.text().count("broker_connected") == 1
    assert system.one("SELECT count(*) FROM taximeter.quarantine WHERE reason = 'internal_error'") == 0
    with connection(system.database_url) as conn:
        report = verify(conn)
    assert report.ok, [fault.sentence for fault in report.faults]
    assert system.worker.metrics()["taximeter_broker_reconnects_total"] == 0
