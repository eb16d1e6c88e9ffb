"""Providers' bills against the log: each planted difference is found and named, and what is not a bill is refused."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from factories import make_usage
from taximeter_cli import main
from taximeter_db import connect
from taximeter_db.ledger import booking
from taximeter_worker.bills.compare import Reason, Row, compare
from taximeter_worker.bills.lines import Line
from taximeter_worker.bills.providers import PROVIDERS
from taximeter_worker.errors import BillError

BILLS = Path(__file__).parents[1] / "data" / "bills"
DAYS = [dt.date(2026, 11, day) for day in (10, 11, 12)]
MODELS = {
    "openai": ("gpt-4o", "gpt-4o-mini"),
    "anthropic": ("claude-sonnet-4-20250514", "claude-haiku-4-5"),
    "aws": ("anthropic.claude-3-5-sonnet-20241022-v2:0", "amazon.nova-lite-v1:0"),
    "google": ("gemini-2.5-pro", "gemini-2.5-flash"),
}
NAMED = {"openai": "openai", "anthropic": "anthropic", "aws": "aws-bedrock", "google": "google-vertex"}
UNMETERED = {
    "openai": "o3-2025-04-16",
    "anthropic": "claude-opus-4-1-20250805",
    "aws": "Llama3-3-70B",
    "google": "Gemini 2.0 Flash",
}
COUNTED = [
    ("openai", ["openai_costs.json"]),
    ("openai", ["openai_costs.csv", "openai_usage.json"]),
    ("anthropic", ["anthropic_cost_report.json", "anthropic_usage_report.json"]),
    ("aws", ["aws_cur2.csv"]),
    ("google", ["google_export.jsonl"]),
    ("google", ["google_cost_table.csv"]),
]
UNCOUNTED = [("openai", ["openai_costs.csv"]), ("anthropic", ["anthropic_cost_report.json"])]


@pytest.fixture
def conn(database_url: str) -> Iterator[Connection[Any]]:
    with connect.booking_connection(database_url) as connection:
        yield connection


def used(provider: str, model: str, day: dt.date, quantities: dict[str, int], cost: str, **more: Any) -> Any:
    at = int(dt.datetime.combine(day, dt.time(13), dt.UTC).timestamp()) * 1_000_000
    return make_usage(provider=provider, model=model, quantities=quantities, cost=cost, occurred_at=at, **more)


def book_story(conn: Connection[Any], provider: str) -> None:
    """What the log has. The large model costs 2.50 USD for a million tokens of input and 10 of output, the small one 0.15."""
    large, small = MODELS[provider]
    name = NAMED[provider]
    halves = {"input_tokens": 500_000, "output_tokens": 50_000}
    booking.book(
        conn,
        [used(name, large, day, halves, "1.75", workspace_id=ws) for day in DAYS for ws in ("acme", "blue")]
        + [used(name, small, day, {"input_tokens": 1_000_000}, "0.15") for day in DAYS[1:]]
        + [used("somebody-else", large, DAYS[0], halves, "99")],
    )


def lines(provider: str, files: list[str]) -> list[Line]:
    return [line for file in files for line in PROVIDERS[provider].read((BILLS / file).read_text())]


def reasons(rows: list[Row]) -> dict[tuple[int, str], list[tuple[str, str | None, str | None]]]:
    return {
        (DAYS.index(row.day), row.model): [
            (one.kind, None if one.amount is None else format(one.amount, "f"), one.unit) for one in row.reasons
        ]
        for row in rows
    }


@pytest.mark.parametrize(("provider", "files"), COUNTED)
def test_each_planted_difference_is_found_and_named(conn: Connection[Any], provider: str, files: list[str]) -> None:
    book_story(conn, provider)
    large, small = MODELS[provider]
    rows = compare(conn, lines(provider, files), list(PROVIDERS[provider].names))
    assert reasons(rows) == {
        (0, large): [],
        (1, large): [("missing_usage", "1", "input_tokens")],
        (1, small): [("price", "0.15", None)],
        (2, large): [("unbilled", "-3.5", None)],
        (2, small): [("rounding", "0.0012", None)],
        (2, UNMETERED[provider]): [("unmetered_calls", "8", None)],
    }
    assert sum(row.difference for row in rows) == Decimal("5.6512")
    missing = next(row for row in rows if row.day == DAYS[1] and row.model == large)
    assert (missing.usages, missing.metered, missing.billed) == (2, Decimal("3.5"), Decimal("4.5"))
    assert missing.reasons == (
        Reason("missing_usage", Decimal(1), "input_tokens", Decimal(1_400_000), Decimal(1_000_000)),
    )


@pytest.mark.parametrize(("provider", "files"), UNCOUNTED)
def test_a_bill_without_quantities_explains_less(conn: Connection[Any], provider: str, files: list[str]) -> None:
    book_story(conn, provider)
    large, small = MODELS[provider]
    found = reasons(compare(conn, lines(provider, files), list(PROVIDERS[provider].names)))
    assert found[0, large] == []
    assert found[1, large] == [("unexplained", "1", None)]
    assert found[1, small] == [("unexplained", "0.15", None)]
    assert found[2, small] == [("rounding", "0.0012", None)]


def test_price_and_missing_usage_are_told_apart_exactly(conn: Connection[Any]) -> None:
    # a third of the tokens is not metered, and each costs 3 USD a million where it was metered at 2
    booking.book(conn, [used("openai", "x", DAYS[0], {"input_tokens": 2_000_001}, "4.000002")])
    bill = [Line(DAYS[0], "x", "input_tokens", Decimal(3_000_001), Decimal("9.000003"))]
    (row,) = compare(conn, bill, ["openai"])
    assert [(one.kind, one.amount) for one in row.reasons] == [
        ("missing_usage", Decimal(3)),
        ("price", Decimal("2.000001")),
    ]
    assert sum(one.amount or 0 for one in row.reasons) == row.difference


def test_who_may_not_read_every_workspace_gets_no_half_answer(conn: Connection[Any], role_url: Any) -> None:
    book_story(conn, "openai")
    bill = lines("openai", ["openai_costs.json"])
    with connect.connection(role_url("dashboard")) as page, pytest.raises(psycopg.errors.InsufficientPrivilege):
        compare(page, bill, ["openai"])


def test_what_a_usage_was_repriced_to_is_what_is_compared(conn: Connection[Any]) -> None:
    booking.book(conn, [used("openai", "x", DAYS[0], {"input_tokens": 10}, "1")])
    bill = [Line(DAYS[0], "x", "input_tokens", Decimal(10), Decimal(7))]
    for number, cost in enumerate(("5", "7"), 1):
        conn.execute(
            "INSERT INTO taximeter.repriced_usages (workspace_id, seq, repricing, old_cost, new_cost)"
            " VALUES ('acme', 1, %s, 1, %s)",
            [number, Decimal(cost)],
        )
    (row,) = compare(conn, bill, ["openai"])
    assert (row.metered, row.reasons) == (Decimal(7), ())


def test_pools_that_the_bill_does_not_tell_apart_count_together(conn: Connection[Any]) -> None:
    quantities = {
        "input_tokens": 10,
        "cached_input_tokens": 5,
        "output_tokens": 3,
        "reasoning_tokens": 4,
        "requests": 1,
    }
    booking.book(conn, [used("openai", "x", DAYS[0], quantities, "1")])
    bill = [
        Line(DAYS[0], "x", "input_tokens", Decimal(10), Decimal("0.4")),
        Line(DAYS[0], "x", "cached_input_tokens", Decimal(5), Decimal("0.1")),
        Line(DAYS[0], "x", "output_tokens", Decimal(7), Decimal("0.5")),
    ]
    (row,) = compare(conn, bill, ["openai"])
    assert row.reasons == ()


def test_more_metered_than_billed_is_unbilled_and_a_model_can_be_named(conn: Connection[Any]) -> None:
    booking.book(conn, [used("openai", "ours", DAYS[0], {"output_tokens": 30}, "3")])
    bill = [Line(DAYS[0], "theirs", "output_tokens", Decimal(20), Decimal(2))]
    found = reasons(compare(conn, bill, ["openai"]))
    assert found == {
        (0, "ours"): [("unbilled", "-3", None)],
        (0, "theirs"): [("unmetered_calls", "2", None)],
    }
    (row,) = compare(conn, bill, ["openai"], models={"theirs": "ours"})
    assert [(one.kind, one.amount) for one in row.reasons] == [("unbilled", Decimal(-1))]


GOOD_PAGE = '{"object": "page", "data": [{"start_time": 1762732800, "results": [%s]}], "has_more": false}'
GOOD_COST = (
    '{"object": "organization.costs.result", "amount": {"value": 1, "currency": "usd"}, "line_item": "x, input"}'
)
AWS_HEADER = (BILLS / "aws_cur2.csv").read_text().partition("\n")[0]


@pytest.mark.parametrize(
    ("provider", "text", "told"),
    [
        ("openai", "a,b\n1,2\n", "no column start_time, amount_value"),
        ("openai", "{", "not JSON"),
        ("openai", "{}", "no list `data`"),
        ("openai", GOOD_PAGE % "3", "no list `results`"),
        ("openai", GOOD_PAGE % '{"object": "organization.usage.images.result"}', "organization.usage.images.result"),
        ("openai", GOOD_PAGE % GOOD_COST.replace("usd", "eur"), "is in 'eur'"),
        ("openai", GOOD_PAGE % GOOD_COST.replace('"x, input"', "null"), "group_by=line_item"),
        ("openai", GOOD_PAGE % GOOD_COST.replace('"value": 1', '"value": "NaN"'), "not a number"),
        ("openai", (GOOD_PAGE % GOOD_COST).replace("false", "true"), "more pages"),
        ("openai", (GOOD_PAGE % GOOD_COST).replace("1762732800", "1e99"), "not a Unix time"),
        ("anthropic", "date,model\n", "cost_report"),
        ("anthropic", '{"data": [{"starting_at": "then", "results": []}]}', "not a time"),
        (
            "anthropic",
            '{"data": [{"starting_at": "2026-11-10T00:00:00Z", "results": [{"tokens": 1}]}]}',
            "neither of the cost report",
        ),
        (
            "anthropic",
            '{"data": [{"starting_at": "2026-11-10T00:00:00Z", "results": [{"amount": "1", "currency": "USD"}]}]}',
            "description",
        ),
        ("aws", AWS_HEADER.replace("line_item_usage_type", "usage") + "\n", "no column line_item_usage_type"),
        ("aws", f"{AWS_HEADER}\n1,2\n", "not as many cells"),
        ("google", '{"service": "Vertex AI"}', "not one of the billing export"),
        ("google", "Month,Cost\n", "no column Service description"),
    ],
)
def test_what_is_no_bill_is_refused_with_what_is_missing(provider: str, text: str, told: str) -> None:
    with pytest.raises(BillError, match=told):
        list(PROVIDERS[provider].read(text))


@pytest.mark.parametrize(
    ("provider", "text", "read"),
    [
        (
            "openai",
            GOOD_PAGE
            % GOOD_COST.replace("x, input", "gpt-4o-2024-08-06, cached input").replace('"value": 1', '"value": 0.1'),
            [("gpt-4o-2024-08-06", "cached_input_tokens", None, "0.1")],
        ),
        ("openai", GOOD_PAGE % GOOD_COST.replace("x, input", "web search"), [("web search", None, None, "1")]),
        (
            "openai",
            GOOD_PAGE % '{"object": "organization.usage.completions.result", "model": "m", "input_tokens": 100,'
            ' "input_cached_tokens": 30, "input_audio_tokens": 20, "output_tokens": 9, "output_audio_tokens": 4}',
            [
                ("m", "input_tokens", "50", None),
                ("m", "cached_input_tokens", "30", None),
                ("m", "input_audio_tokens", "20", None),
                ("m", "output_tokens", "5", None),
                ("m", "output_audio_tokens", "4", None),
            ],
        ),
        (
            "anthropic",
            (
                '{"data": [{"starting_at": "2025-11-10T00:00:00Z", "results": [{"amount": "123.45", "currency": "USD", "model": "c",'
                ' "cost_type": "tokens", "token_type": "cache_creation.ephemeral_1h_input_tokens"},'
                ' {"amount": "7", "currency": "USD", "model": null, "cost_type": "web_search", "token_type": null}]}]}'
            ),
            [("c", "cache_write_1h_tokens", None, "1.2345"), ("web_search", None, None, "0.07")],
        ),
        (
            "anthropic",
            (
                '{"data": [{"starting_at": "2025-11-10T00:00:00Z", "results": [{"model": "c", "uncached_input_tokens": 1,'
                ' "cache_read_input_tokens": 2, "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4},'
                ' "output_tokens": 5}]}]}'
            ),
            [
                ("c", "input_tokens", "1", None),
                ("c", "cached_input_tokens", "2", None),
                ("c", "cache_write_tokens", "3", None),
                ("c", "cache_write_1h_tokens", "4", None),
                ("c", "output_tokens", "5", None),
            ],
        ),
        (
            "aws",
            (
                f"{AWS_HEADER}\n,,Usage,AmazonBedrock,2025-11-10T23:00:00.000Z,,EUC1-Nova2.0Lite-cache-read-input-token-count,,2.5,,"
                "0.01,USD,,1M tokens,\n,,Usage,AmazonBedrock,2025-11-10T00:00:00Z,,USE1-Guardrail-ContentPolicyUnits,,3,,0.45,USD,,,\n"
            ),
            [
                ("Nova2.0Lite", "cached_input_tokens", "2500000.0", "0.01"),
                ("Guardrail-ContentPolicyUnits", None, None, "0.45"),
            ],
        ),
        (
            "google",
            (
                '{"service": {"description": "Gemini API"}, "sku": {"description": "Gemini 2.5 Flash Lite Cached Input tokens"},'
                ' "usage": {"amount": 7, "unit": "count"}, "usage_start_time": "2025-11-10 07:00:00 UTC", "cost": 0.000001,'
                ' "cost_type": "regular", "currency": "USD"}'
            ),
            [("Gemini 2.5 Flash Lite", "cached_input_tokens", "7", "0.000001")],
        ),
    ],
)
def test_lines_are_read_exactly(
    provider: str, text: str, read: list[tuple[str, str | None, str | None, str | None]]
) -> None:
    found = list(PROVIDERS[provider].read(text))
    assert {line.day for line in found} == {dt.date(2025, 11, 10)}
    assert [
        (
            line.model,
            line.unit,
            *(None if number is None else format(number, "f") for number in (line.quantity, line.cost)),
        )
        for line in found
    ] == read


def test_pages_may_stand_in_one_list() -> None:
    page = json.loads((BILLS / "openai_costs.json").read_text())
    pages = json.dumps([{**page, "has_more": True}, page])
    assert len(list(PROVIDERS["openai"].read(pages))) == 2 * len(lines("openai", ["openai_costs.json"]))


def test_the_command_tells_people_and_machines(
    conn: Connection[Any], database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TAXIMETER_DATABASE_URL", database_url)
    book_story(conn, "openai")

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["taximeter", "reconcile", *arguments])
        code = main.run()
        done = capsys.readouterr()
        return code, done.out + done.err

    file = str(BILLS / "openai_costs.json")
    code, out = run("openai", file, "--json")
    document = json.loads(out)
    assert (code, document["ok"], document["billed"], document["metered"]) == (1, False, "16.4512", "10.8")
    assert [row["difference"] for row in document["rows"]][:2] == ["0", "1"]
    assert document["rows"][1]["reasons"][0]["kind"] == "missing_usage"
    code, out = run("openai", file)
    assert code == 1
    assert "missing usage 1 (input_tokens: 1,400,000 billed, 1,000,000 metered)" in " ".join(out.split())
    assert run("openai", file, "--provider", "nobody")[0] == 1
    for wrong in (["nobody", file], ["openai", file, "--rounding", "x"], ["openai", file, "--model", "a"]):
        assert run(*wrong)[0] == 2, wrong
    code, out = run("aws", file)
    assert code == 1
    assert "no column" in out
