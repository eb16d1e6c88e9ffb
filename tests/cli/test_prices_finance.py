"""`taximeter prices` for whoever answers for the numbers: rules, policies, missing, litellm, diff, reprice, simulate."""

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_events import usage_event
from taximeter import names
from taximeter_cli import main
from taximeter_db.connect import booking_connection
from taximeter_db.ledger import booking
from taximeter_worker.consume.batch import price
from taximeter_worker.decode.message import decode_message
from taximeter_worker.pricing.loading import load_book
from taximeter_worker.tasks.replay import replay_waiting

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
DAY = (NOW - dt.timedelta(days=1)).isoformat()
Run = Callable[..., str]


@pytest.fixture
def run(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Give a command line to `taximeter prices` in this process; its output, or with ``code`` its errors."""
    for name, url in (("DATABASE", database_url), ("REDIS", redis_url), ("BROKER", redis_url)):
        monkeypatch.setenv(f"TAXIMETER_{name}_URL", url)

    def run(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr("sys.argv", ["taximeter", "prices", *arguments])
        got = main.run()
        done = capsys.readouterr()
        assert got == code, done.err
        return done.err if code else done.out

    return run


def event(number: str, quantities: dict[str, Any], model: str = "gpt-4o") -> dict[str, Any]:
    time = (NOW - dt.timedelta(hours=1)).isoformat()
    return usage_event(event_id=number, time=time, provider="openai", model=model, quantities=quantities)


def book(url: str, *events: dict[str, Any]) -> None:
    """Book as a worker does, quarantine included."""
    with booking_connection(url) as conn:
        body = json.dumps(list(events)).encode()
        decoded = decode_message(body, names.CONTENT_TYPE_BATCH, now=int(NOW.timestamp()) * 1_000_000)
        rejected = list(decoded.rejected)
        booking.book(conn, price(load_book(conn), decoded.usages, rejected), (), rejected)


def replay(url: str) -> int:
    with booking_connection(url) as conn:
        return replay_waiting(conn, lambda *_: None, book=load_book(conn))


def test_rules_are_set_listed_and_explained(run: Run, tmp_path: Path) -> None:
    run(
        "set",
        "--tool",
        "chat",
        "--provider",
        "openai",
        "--model",
        "gpt-4o",
        "--unit",
        "seconds",
        "--price",
        "0.03",
        "--per",
        "60",
        "--charge",
        "package",
    )
    run("set", "--tool", "chat", "--multiplier", "1.2")
    run("set", "--workspace", "acme", "--multiplier", "0.5", "--until", "2099-01-01")
    run("set", "--tool", "chat", "--per-event", "0.01")
    run("set", "--tool", "chat", "--minimum", "0.1")
    listed = run("list")
    assert "0.03 per started 60" in listed
    assert "minimum charge 0.1" in listed
    assert "until 2099-01-01T00:00:00Z" in listed
    file = tmp_path / "event.json"
    file.write_text(json.dumps(event("1", {"seconds": 61})))
    shown = run("explain", str(file))
    assert "0.03 per 60 started (2 of them)" in shown
    receipt = json.loads(run("explain", str(file), "--json"))
    assert [step["exact"] for step in receipt["steps"]] == ["0.07", "0.084", "0.042", "0.1"]
    assert receipt["cost"] == "0.1"


def test_a_correction_replaces_the_price_in_force(run: Run) -> None:
    run("set", "--tool", "chat", "--unit", "requests", "--price", "25")
    assert "say --correct" in run(
        "set", "--tool", "chat", "--unit", "requests", "--price", "2", "--from", "ever", code=1
    )
    said = run("set", "--tool", "chat", "--unit", "requests", "--price", "2.5", "--correct")
    assert "2.5 per 1 from the beginning" in said
    assert "In its place: 25 per 1" in said
    assert [found["amount"] for found in json.loads(run("list", "--json"))["prices"]] == ["2.5"]
    assert "Nothing to do" in run("set", "--tool", "chat", "--unit", "requests", "--price", "2.5", "--correct")


def test_given_ends_do_not_overlap(run: Run) -> None:
    year = ("set", "--tool", "chat", "--unit", "requests")
    run(*year, "--price", "1", "--from", "2090-01-01", "--until", "2091-01-01")
    refused = run(*year, "--price", "2", "--from", "2090-06-01", code=1)
    assert "1 per 1 from 2090-01-01T00:00:00Z until 2091-01-01T00:00:00Z" in refused
    assert "2 per 1 from 2090-06-01T00:00:00Z" in refused
    assert "Overlap" in run(*year, "--price", "2", "--from", "2089-01-01", "--until", "2090-06-01", code=1)
    run(*year, "--price", "2", "--from", "2091-01-01")
    run(*year, "--price", "3", "--from", "2089-01-01", "--until", "2090-01-01")


def test_missing_prices_are_listed_and_booked_once_there_is_one(run: Run, database_url: str) -> None:
    assert "Nothing waits" in run("missing")
    run("set", "--provider", "openai", "--model", "gpt-4o", "--unit", "input_tokens", "--price", "1")
    both = {"input_tokens": 1, "pages": 2}
    book(database_url, event("1", both), event("2", both), event("3", {"input_tokens": 1}, "new"))
    found = json.loads(run("missing", "--json"))
    assert found["waiting"] == 3
    assert [(m["model"], m["unit"], m["events"]) for m in found["missing"]] == [
        ("gpt-4o", "pages", 2),
        ("new", "input_tokens", 1),
    ]
    assert "pages" in run("missing")
    run("set", "--tool", "chat", "--unit", "pages", "--price", "0.5")
    assert "2 of 3 events have a price by now" in run("missing")
    assert replay(database_url) == 2
    run("policy", "estimate", "--tool", "chat", "--provider", "openai", "--model", "gpt-4o")
    assert replay(database_url) == 1
    assert "Nothing waits" in run("missing")
    receipt = json.loads(run("explain", "--workspace", "acme", "--event", "3", "--json"))
    assert (receipt["estimated"], receipt["cost"]) == (True, "1")
    with booking_connection(database_url) as conn:
        rows = conn.execute("SELECT event_id FROM taximeter.usage_pricing WHERE estimated").fetchall()
    assert rows == [("3",)]
    # The real price has come: the estimate is adjusted like any other.
    run("set", "--provider", "openai", "--model", "new", "--unit", "input_tokens", "--price", "3")
    assert json.loads(run("reprice", "--since", DAY, "--json"))["difference"] == "-2"
    assert "not one of quarantine" in run("policy", "perhaps", "--tool", "chat", code=2)


def test_a_free_tool_costs_nothing_by_decision(run: Run, database_url: str) -> None:
    run("policy", "free", "--tool", "chat")
    book(database_url, event("1", {"input_tokens": 9}))
    receipt = json.loads(run("explain", "--workspace", "acme", "--event", "1", "--json"))
    assert (receipt["cost"], receipt["lines"][0]["policy"]) == ("0", "free")


LITELLM = {
    "sample_spec": {"input_cost_per_token": 0.0, "litellm_provider": "one of them"},
    "gpt-4o": {
        "litellm_provider": "openai",
        "mode": "chat",
        "input_cost_per_token": 2.5e-06,
        "output_cost_per_token": 1.1e-05,
        "input_cost_per_token_batches": 1.25e-06,
        "cache_read_input_token_cost": 1.25e-06,
    },
    "gemini/long": {
        "litellm_provider": "gemini",
        "input_cost_per_token": 1e-06,
        "input_cost_per_token_above_200k_tokens": 2e-06,
    },
    "whisper": {"litellm_provider": "openai", "input_cost_per_second": 0.0001, "output_cost_per_second": 0.0001},
    "perhaps-free": {"litellm_provider": "openai", "input_cost_per_token": 0, "output_cost_per_token": 0.0},
}


@pytest.fixture
def litellm(tmp_path: Path) -> str:
    file = tmp_path / "litellm.json"
    file.write_text(json.dumps(LITELLM))
    return str(file)


def test_litellms_file_is_imported_after_a_dry_run(run: Run, litellm: str, tmp_path: Path) -> None:
    run("set", "--provider", "openai", "--model", "gpt-4o", "--unit", "input_tokens", "--price", "9")
    dry = json.loads(run("import", "litellm", litellm, "--dry-run", "--json"))
    assert not dry["written"]
    assert (len(dry["added"]), len(dry["refused"])) == (4, 1)
    assert dry["refused"][0]["existing"]["amount"] == "9"
    assert any("batch" in note for note in dry["notes"])
    assert any("perhaps-free" in note for note in dry["notes"])
    run("import", "litellm", litellm)
    prices = {(p.get("model"), p["unit"]): p for p in json.loads(run("list", "--json"))["prices"]}
    assert (prices["gpt-4o", "output_tokens"]["amount"], prices["gpt-4o", "output_tokens"]["per"]) == ("11", "1000000")
    assert prices["long", "input_tokens"]["provider"] == "google"
    assert prices["long", "input_tokens"]["tiers"] == [{"above": 200_000, "amount": "2"}]
    assert (prices["whisper", "seconds"]["amount"], prices["whisper", "seconds"]["per"]) == ("0.36", "3600")
    assert json.loads(run("import", "litellm", litellm, "--json"))["added"] == []
    changed = {**LITELLM, "gpt-4o": {**LITELLM["gpt-4o"], "output_cost_per_token": 1e-05}}
    Path(litellm).write_text(json.dumps(changed))
    assert "changed  openai gpt-4o, output_tokens: 11 per 1,000,000" in run("import", "litellm", litellm)
    exported = tmp_path / "book.json"
    run("export", str(exported))
    assert "0 added, 0 changed" in run("import", str(exported))
    Path(litellm).write_text('{"a": 1}')
    assert "not litellm's JSON" in run("import", "litellm", litellm, code=1)
    assert "takes a file" in run("import", "litellm", code=2)


def test_two_catalogues_are_compared_with_counts(run: Run, litellm: str) -> None:
    report = json.loads(run("diff", "genai-prices", litellm, "--json"))
    assert report["total"]["models_both"] == 2  # a dated gpt-4o has prices of its own in the one and none in the other
    assert report["providers"]["openai"]["models_both"] == 2
    of_gpt = {found["unit"]: found for found in report["differences"] if found["model"] == "gpt-4o"}
    assert "input_tokens" not in of_gpt
    assert [of_gpt["output_tokens"][side]["amount"] for side in ("a", "b")] == ["10", "11"]
    assert "openai gpt-4o, output_tokens: A 10 per 1,000,000; B 11 per 1,000,000" in run(
        "diff", "genai-prices", litellm
    )
    same = json.loads(run("diff", litellm, litellm, "--json"))
    assert (same["total"]["prices_same"], same["differences"]) == (5, [])
    run("import", "litellm", litellm)
    assert json.loads(run("diff", "book", litellm, "--json"))["total"]["prices_same"] == 5


def test_reprice_shows_then_posts_then_has_nothing_to_do(run: Run, database_url: str) -> None:
    run("set", "--tool", "chat", "--unit", "requests", "--price", "25")
    book(database_url, event("1", {"requests": 1}), event("2", {"requests": 2}))
    run("set", "--tool", "chat", "--unit", "requests", "--price", "2.5", "--from", DAY, "--backdated")
    shown = run("reprice", "--since", DAY)
    assert "75 → 7.5 USD" in shown
    assert "Nothing was posted" in shown
    assert "say why" in run("reprice", "--since", DAY, "--post", code=2)
    posted = json.loads(run("reprice", "--since", DAY, "--post", "--reason", "typed 25 for 2.5", "--json"))
    assert (posted["difference"], posted["workspaces"][0]["usages"]) == ("67.5", 2)
    assert "Nothing to adjust" in run("reprice", "--since", DAY, "--post", "--reason", "again")
    with booking_connection(database_url) as conn:
        row = conn.execute("SELECT balance::text FROM taximeter.workspace_balance").fetchone()
    assert row == ("-7.500000000000",)
    assert json.loads(run("explain", "--workspace", "acme", "--event", "1", "--json"))["cost"] == "25"


def test_simulate_reads_a_book_file(run: Run, database_url: str, tmp_path: Path) -> None:
    run("set", "--tool", "chat", "--unit", "requests", "--price", "1")
    book(database_url, event("1", {"requests": 3}))
    file = tmp_path / "other.json"
    run("export", str(file))
    file.write_text(file.read_text().replace('"amount": "1"', '"amount": "4"'))
    done = json.loads(run("simulate", str(file), "--since", DAY, "--json"))
    assert (done["total"]["old"], done["total"]["new"], done["tools"][0]["difference"]) == ("3", "12", "9")
    assert "all workspaces" in run("simulate", str(file), "--since", DAY)
    assert "no usages" in run("simulate", str(file), "--since", "2099-01-01")
