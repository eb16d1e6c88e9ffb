"""The commands against an embedded instance: what they print, change and refuse."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from cloud_events import usage_event
from instances import COMMAND, Instance, environment, taximeter
from taximeter import names
from taximeter_cli import main
from taximeter_cli.commands import publish
from taximeter_cli.embedded.process import free_port, wait_until
from taximeter_db import migrate


def sent(instance: Instance, *events: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Publish events from a file."""
    file = instance.folder / "events.ndjson"
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    return instance("publish", str(file))


def usage(workspace: str, event_id: str, **data: Any) -> dict[str, Any]:
    data = {"provider": "openai", "model": "gpt-4o", "quantities": {"input_tokens": 1000}, **data}
    return usage_event(workspace, event_id, time="2026-01-01T00:00:00Z", **data)


def test_credit_answers_with_the_new_balance_and_the_flag_follows_at_once(running: Instance):
    first = running.json("credit", "pay-1", "25.00", "--id", "pi_1", "--reference", "stripe-7", "--note", "thanks")
    assert (first["balance"], first["status"], first["duplicate"]) == ("25", "sufficient", False)
    with redis.Redis.from_url(running.addresses["TAXIMETER_REDIS_URL"], decode_responses=True) as flags:
        assert flags.hget("taximeter:flag:{pay-1}", "enabled") == "1"
        assert flags.hget("taximeter:balance:{pay-1}", "balance") == "25"
        again = running.json("credit", "pay-1", "25.00", "--id", "pi_1", "--reference", "stripe-7", "--note", "thanks")
        assert (again["balance"], again["duplicate"]) == ("25", True)
        other = running("credit", "pay-1", "26.00", "--id", "pi_1")
        assert other.returncode == 1
        assert "id_conflict" in other.stderr
        down = running.json("credit", "pay-1", "-25.12", "--id", "adj_1", "--kind", "adjustment")
        assert (down["balance"], down["status"], down["ai_enabled"]) == ("-0.12", "low", True)
        down = running.json("credit", "pay-1", "-0.000000001", "--id", "adj_2", "--kind", "adjustment")
        assert (down["balance"], down["status"], down["ai_enabled"]) == ("-0.120000001", "insufficient", False)
        assert flags.hget("taximeter:flag:{pay-1}", "enabled") == "0"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("acme", "0", "--id", "x"), "amount"),
        (("acme", "-5", "--id", "x"), "adjustment"),
        (("acme", "1e3", "--id", "x"), "plain digits"),
        (("acme", "1.0000000000001", "--id", "x"), "decimals"),
        (("acme", "NaN", "--id", "x"), "amount"),
        (("no spaces", "1", "--id", "x"), "workspace"),
        (("acme", "1", "--id", ""), "id"),
        (("acme", "1", "--id", "x", "--kind", "gift"), "top_up"),
        (("acme", "1", "--id", "x", "--kind", "clawback", "--payment", "pi_1"), "negative"),
        (("acme", "-1", "--id", "x", "--kind", "clawback"), "payment_id"),
        (("acme", "-1", "--id", "x", "--kind", "reinstated", "--payment", "pi_1"), "negative"),
        (("acme", "1", "--id", "x" * 256), "255"),
        (("acme", "1", "--id", "ä"), "ASCII"),
        (("acme", "1", "--id", "x", "--note", "n" * 2001), "2000"),
        (("acme", "1", "--id", "x", "--note", os.fsdecode(b"\xff")), "surrogate"),
    ],
)
def test_credit_refuses_with_the_reason_and_books_nothing(running: Instance, arguments: tuple[str, ...], word: str):
    done = running("credit", *arguments)
    assert done.returncode == 2
    assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_payer_takes_money_back_gives_it_again_and_a_promo_expires(running: Instance):
    running.json("credit", "back", "25.00", "--id", "pi_1")
    for payment_id, amount, kind, balance in (
        ("dp_1", "-25.00", "clawback", "0"),
        ("dp_2", "25.00", "reinstated", "25"),
        ("ex_1", "-5.00", "expiry", "20"),
    ):
        answer = running.json("credit", "back", amount, "--id", payment_id, "--kind", kind, "--payment", "pi_1")
        assert answer["balance"] == balance


def test_workspace_set_and_show(running: Instance):
    unseen = running.json("workspace", "show", "set-1")
    assert (unseen["seen"], unseen["balance"], unseen["status"], unseen["ai_enabled"]) == (
        False,
        "0",
        "sufficient",
        True,
    )
    assert (unseen["minimum_balance"], unseen["low_balance_threshold"], unseen["created_at"]) == ("-0.12", "0", None)
    told = running("workspace", "show", "set-1", TAXIMETER_MINIMUM_BALANCE="-3", TAXIMETER_LOW_BALANCE="1")
    assert told.returncode == 0
    for words in ("never seen", "-3 USD", "low (AI is enabled)"):
        assert words in told.stdout
    made = running.json("workspace", "set", "set-1", "--minimum-balance", "-2", "--low-balance", "1.5")
    assert (made["minimum_balance"], made["low_balance_threshold"], made["status"]) == ("-2", "1.5", "low")
    assert made["seen"]
    kept = running.json("workspace", "set", "set-1", "--low-balance", "0")
    assert (kept["minimum_balance"], kept["low_balance_threshold"], kept["status"]) == ("-2", "0", "sufficient")
    with redis.Redis.from_url(running.addresses["TAXIMETER_REDIS_URL"], decode_responses=True) as flags:
        assert flags.hget("taximeter:flag:{set-1}", "status") == "sufficient"
    table = running("workspace", "show", "set-1").stdout
    assert "Minimum balance" in table
    assert "-2 USD" in table
    for wrong, code in (
        (("--minimum-balance", "5"), 1),  # beside the threshold that is stored
        (("--low-balance", "-3"), 1),
        (("--minimum-balance", "5", "--low-balance", "4"), 2),
        (("--minimum-balance", "NaN"), 2),
        (("--low-balance", ""), 2),
        (("--low-balance", "Infinity"), 2),
    ):
        refused = running("workspace", "set", "set-1", *wrong)
        assert refused.returncode == code, wrong
        assert "Traceback" not in refused.stderr
    assert running.json("workspace", "show", "set-1")["minimum_balance"] == "-2"


def test_published_events_are_booked_and_bad_lines_named(running: Instance):
    done = sent(running, usage("pub-1", "e1"), {"specversion": "1.0"}, usage("pub-1", "e2", output="\ud800"))
    assert done.returncode == 1
    assert "line 2: " in done.stderr
    assert "2 events published" in done.stdout

    def booked() -> bool:
        return running("workspace", "show", "pub-1", "--json").stdout.count('"usage_count": 2') == 1

    assert wait_until(booked, 20)
    assert running.json("workspace", "show", "pub-1")["usage_cost"] == "0.005"


def test_published_from_stdin(running: Instance):
    text = "".join(json.dumps(usage("pub-2", f"e{number}")) + "\n" for number in range(2))
    csv = "n\n1\n"
    for given, options in ((text, ()), (csv, ("--map", "n=input_tokens", "--tool", "t", "--workspace", "pub-2"))):
        done = subprocess.run(
            [*COMMAND, "publish", "-", *options, "--json"],
            cwd=running.folder,
            env=environment(),
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["published"] == given.count("\n") - (given is csv)


def test_a_broker_that_is_away_leaves_nothing_behind(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
):
    file = tmp_path / "events.ndjson"
    file.write_text(json.dumps(usage("pub-3", "e1")) + "\n")
    monkeypatch.setattr(publish, "CONFIRM_SECONDS_MAX", 0.5)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TAXIMETER_BROKER_URL", "redis://127.0.0.1:1/1")
    monkeypatch.setattr(sys, "argv", ["taximeter", "publish", str(file)])
    assert main.run() == 1
    told = capsys.readouterr().err
    assert "It confirmed 0 events before; the rest is not kept." in told
    assert "run the same command again" in told
    assert "stay in the spool" not in told + caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["events.ndjson"]


def test_quarantine_is_listed_shown_replayed_and_dismissed(running: Instance):
    nasty = "model-\u001b[31m[red]"
    sent(
        running,
        usage("q-1", "a", model="nobody-knows", input="secret"),
        usage("q-1", "b", quantities={"input_tokens": -1}),
        usage("q-1", "c", model=nasty),
    )
    assert wait_until(lambda: len(running.json("quarantine", "list", "--workspace", "q-1")["entries"]) == 3, 20)
    entries = {e["event_id"]: e for e in running.json("quarantine", "list", "--workspace", "q-1")["entries"]}
    assert {event: entry["reason"] for event, entry in entries.items()} == {
        "a": "price_missing",
        "b": "negative_quantity",
        "c": "price_missing",
    }
    table = running("quarantine", "list", "--workspace", "q-1").stdout
    assert "price_missing" in table
    assert "\u001b" not in table
    assert "secret" not in table
    shown = running.json("quarantine", "show", str(entries["a"]["id"]))
    assert json.loads(shown["event"])["data"]["input"] == "secret"
    assert "\u001b" not in running("quarantine", "show", str(entries["c"]["id"])).stdout

    kept = running.json("quarantine", "replay", str(entries["b"]["id"]))
    assert kept["kept"] == 1
    assert kept["entries"][0]["reason"] == "negative_quantity"
    closed = running.json("quarantine", "dismiss", str(entries["b"]["id"]), "--note", "a broken test tool")
    assert (closed["resolution"], closed["resolution_note"]) == ("dismissed", "a broken test tool")
    twice = running("quarantine", "dismiss", str(entries["b"]["id"]), "--note", "again")
    assert twice.returncode == 1
    assert "resolved before" in twice.stderr
    assert running("quarantine", "show", "999999").returncode == 1
    assert running("quarantine", "replay").returncode == 2
    everything = running.json("quarantine", "replay", "--all")
    assert everything["kept"] >= 2
    assert running.json("quarantine", "list", "--workspace", "q-1", "--all", "--limit", "1")["more"]


def test_what_came_with_a_quarantined_message_is_shown(running: Instance):
    headers = {"ce-id": "a", "x-tool": "chat-7"}
    envelope = {"body": "{", "content-type": names.CONTENT_TYPE_EVENT, "properties": {}, "headers": headers}
    with redis.Redis.from_url(running.json("env")["TAXIMETER_BROKER_URL"]) as client:
        client.lpush(names.USAGE_QUEUE, json.dumps(envelope))

    def entries() -> list[dict[str, Any]]:
        return running.json("quarantine", "list", "--reason", "bad_json")["entries"]

    assert wait_until(lambda: len(entries()) == 1, 20)
    [entry] = entries()
    assert "properties" not in entry
    number = str(entry["id"])
    assert running.json("quarantine", "show", number)["properties"] == {"headers": headers}
    assert "chat-7" in running("quarantine", "show", number).stdout
    running("quarantine", "erase", number, "--yes")
    assert running.json("quarantine", "show", number)["properties"] is None
    assert "chat-7" not in running("quarantine", "show", number).stdout


def test_a_quarantined_event_is_corrected_by_its_members_or_by_a_file(running: Instance, tmp_path):
    sent(running, *(usage("q-2", name, quantities={"input_tokens": -1}, input="secret") for name in "abc"))
    assert wait_until(lambda: len(running.json("quarantine", "list", "--workspace", "q-2")["entries"]) == 3, 20)
    a, b, c = [str(entry["id"]) for entry in running.json("quarantine", "list", "--workspace", "q-2")["entries"]]

    done = running.json("quarantine", "replay", a, "--set", "data.quantities.input_tokens=12", "--note", "the sign")
    assert (done["booked"], done["entries"][0]["result"]) == (1, "booked")
    shown = running.json("quarantine", "show", a)
    assert json.loads(shown["event"])["data"]["quantities"] == {"input_tokens": -1}
    [action] = shown["actions"]
    assert json.loads(action["correction"])["data"]["quantities"] == {"input_tokens": 12}
    assert (action["result"], action["note"], shown["resolution"]) == ("booked", "the sign", "replayed")
    assert action["done_by"] == shown["resolved_by"]
    assert "the sign" in running("quarantine", "show", a).stdout

    corrected = json.loads(running.json("quarantine", "show", b)["event"])
    corrected["data"]["quantities"]["input_tokens"] = 30
    (tmp_path / "event.json").write_text(json.dumps(corrected))
    (tmp_path / "event.json").chmod(0o644)
    assert "1 booked" in running("quarantine", "replay", b, "--with", str(tmp_path / "event.json")).stdout
    assert running.json("workspace", "show", "q-2")["usage_count"] == 2

    still = running("quarantine", "replay", c, "--set", "data.quantities.input_tokens=-7")
    assert f"Entry {c} stays" in still.stdout
    running("quarantine", "dismiss", c, "--note", "a test")
    assert [one["action"] for one in running.json("quarantine", "show", c)["actions"]] == ["replay", "dismiss"]
    for wrong in (["--all", "--set", "id=x"], [a, b, "--set", "id=x"], [c, "--set", "id=x", "--with", "f"]):
        assert running("quarantine", "replay", *wrong).returncode == 2
    for wrong in (["--set", "id"], ["--unset", ""], ["--with", "/no/such/file"]):
        refused = running("quarantine", "replay", c, *wrong)
        assert refused.returncode == 2
        assert "Traceback" not in refused.stderr


def test_flags_rebuild_heals_a_flushed_cache(running: Instance):
    running("credit", "flag-1", "1", "--id", "f")
    with redis.Redis.from_url(running.addresses["TAXIMETER_REDIS_URL"], decode_responses=True) as flags:
        flags.flushdb()
        done = running.json("flags", "rebuild")
        assert done["workspaces"] >= 1
        assert flags.hget("taximeter:flag:{flag-1}", "enabled") == "1"
        assert flags.exists("taximeter:flags:ready")


def test_flags_rebuild_writes_what_must_be_known_into_a_full_memory(running: Instance):
    running("credit", "flag-2", "--kind", "adjustment", "--id", "f", "--", "-1")
    with redis.Redis.from_url(running.addresses["TAXIMETER_REDIS_URL"]) as flags:
        flags.config_set("maxmemory", "1")
        try:
            flags.flushdb()
            assert running("flags", "rebuild").returncode == 0
            assert flags.hget("taximeter:flag:{flag-2}", "enabled") == b"0"
        finally:
            flags.config_set("maxmemory", "0")
    assert running("flags", "rebuild").returncode == 0


def test_flags_rebuild_says_what_to_do_where_redis_refuses(running: Instance):
    with redis.Redis.from_url(running.addresses["TAXIMETER_REDIS_URL"]) as flags:
        flags.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            done = running("flags", "rebuild")
        finally:
            flags.execute_command("REPLICAOF", "NO", "ONE")
    assert done.returncode == 1
    assert "takes no flags" in done.stderr
    assert "flags rebuild" not in done.stderr
    assert running("flags", "rebuild").returncode == 0


def test_rollups_are_made_again_from_the_log(running: Instance):
    assert running("rollups", "rebuild").stdout == "Made the rollups of 0 workspaces again, from 0 usages.\n"
    assert running.json("rollups", "rebuild", "nobody")["usages"] == {"nobody": 0}


def test_who_of_the_staff_may_look_is_changed_and_logged(running: Instance):
    running.json("credit", "watched", "1.00", "--id", "watched-1")
    assert running.json("workspace", "readers", "watched")["readers"] == []
    assert running.json("workspace", "readers", "watched", "--allow", "m-7", "--allow", "a b")["readers"] == [
        "a b",
        "m-7",
    ]
    again = running("workspace", "readers", "watched", "--allow", "m-7", "--remove", "a b", "--remove", "nobody")
    assert (again.returncode, again.stdout) == (0, "m-7\n")
    with psycopg.connect(running.addresses["TAXIMETER_DATABASE_URL"]) as conn:
        found = conn.execute(
            "SELECT value_before, value_after FROM taximeter.workspace_changes WHERE workspace_id = 'watched'"
            " AND field = 'reader' AND changed_by <> '' ORDER BY id"
        ).fetchall()
    assert found == [(None, "m-7"), (None, "a b"), ("a b", None)]
    for code, *wrong in ((1, "nobody-knows-it"), (2, "watched", "--allow", " "), (2, "watched", "--allow", "m" * 256)):
        refused = running("workspace", "readers", *wrong)
        assert (refused.returncode, refused.stdout) == (code, "")
    assert running.json("workspace", "readers", "watched")["readers"] == ["m-7"]


def test_contents_are_encrypted_under_the_instances_key_rotated_and_erased(running: Instance):
    key_file = running.data / "master-key"
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert sent(running, usage("kept-secret", "e-1", input="for your eyes only")).returncode == 0
    assert wait_until(lambda: running.json("workspace", "show", "kept-secret")["usage_count"] == 1, 30)
    with psycopg.connect(running.addresses["TAXIMETER_DATABASE_URL"]) as conn:
        query = "SELECT codec, payload FROM taximeter.usage_payloads WHERE workspace_id = 'kept-secret'"
        [(codec, payload)] = conn.execute(query).fetchall()
    assert (codec, b"eyes" in payload) == (2, False)
    assert "current, wraps" in running("keys", "list").stdout
    newer = running("keys", "new").stdout.strip()
    another = json.loads(taximeter("keys", "new", "--json").stdout)
    assert (len(another["key"]), len(another["name"])) == (len(newer), 16)
    both = {"TAXIMETER_MASTER_KEY": f"{newer},{key_file.read_text().strip()}"}
    assert "Wrapped" in running("keys", "rotate", **both).stdout
    assert [key["known"] for key in running.json("keys", "list")] == [True, False]
    unwilling = running("workspace", "erase-payloads", "kept-secret")
    assert (unwilling.returncode, "for ever" in unwilling.stderr) == (1, True)
    erased = running.json("workspace", "erase-payloads", "kept-secret", "--yes")
    assert (erased["keys"], erased["usages"], erased["quarantined"]) == (1, 0, 0)
    assert running.json("verify")["ok"]
    assert "`taximeter keys new`" in running("keys", "rotate", TAXIMETER_MASTER_KEY="short").stderr


def test_a_checkpoint_is_written_and_compared_with(running: Instance):
    key = {"TAXIMETER_CHECKPOINT_KEY": "a secret of the auditor's own"}
    file = running.folder / "today.checkpoint"
    assert "TAXIMETER_CHECKPOINT_KEY is not set" in running("checkpoint", str(file)).stderr
    running.json("credit", "checked", "5", "--id", "before")
    assert running("checkpoint", str(file), **key).returncode == 0
    running.json("credit", "checked", "5", "--id", "after")
    for options in ((), ("--since-checkpoint",)):
        again = running("verify", "--checkpoint", str(file), *options, **key)
        assert (again.returncode, "Everything agrees" in again.stdout) == (0, True), again.stderr
    file.write_bytes(file.read_bytes().replace(b"5.0", b"6.0"))
    changed = running("verify", "--checkpoint", str(file), **key)
    assert (changed.returncode, "was changed" in changed.stderr) == (1, True)
    alone = running("verify", "--since-checkpoint")
    assert (alone.returncode, "needs --checkpoint" in alone.stderr) == (2, True)


def test_verify_and_migrate_report(running: Instance):
    report = running.json("verify")
    assert report["ok"]
    assert report["faults"] == []
    assert "Everything agrees" in running("verify").stdout
    done = running.json("migrate")
    assert done["before"] == done["after"] is not None
    assert done["prices_added"] == 0
    assert "up to date" in running("migrate").stdout


def test_what_needs_no_broker_asks_for_none(running: Instance):
    named = {name: running.addresses[name] for name in ("TAXIMETER_DATABASE_URL", "TAXIMETER_REDIS_URL")}
    keys = {"TAXIMETER_PRODUCER_KEYS": f"tool:{'k' * 32}"}  # as the worker has them, beside its broker
    for command in (
        ("credit", "brokerless", "+5", "--id", "p", "--json"),
        ("workspace", "set", "brokerless", "--low-balance", "1"),
        ("flags", "rebuild"),
        ("quarantine", "replay", "--all"),
    ):
        done = running(*command, **named, **keys)
        assert done.returncode == 0, done.stderr
    assert running.json("workspace", "show", "brokerless")["balance"] == "5"


def test_settings_in_the_environment_win_and_must_be_whole(running: Instance, empty_database_url: str):
    unmigrated = running("verify", TAXIMETER_DATABASE_URL=empty_database_url)
    assert unmigrated.returncode == 1
    assert "taximeter migrate" in unmigrated.stderr
    half = running("credit", "acme", "1", "--id", "h", TAXIMETER_DATABASE_URL=empty_database_url)
    assert half.returncode == 1
    assert "TAXIMETER_REDIS_URL" in half.stderr
    assert "must be set too" in half.stderr
    nobody = running("verify", TAXIMETER_DATABASE_URL="postgresql://taximeter:hush@127.0.0.1:1/x")
    assert nobody.returncode == 1
    assert "PostgreSQL" in nobody.stderr
    assert "hush" not in nobody.stderr
    for command in ("verify", "migrate", "dashboard"):
        mysql = running(command, TAXIMETER_DATABASE_URL="mysql://taximeter:hush@127.0.0.1:1/x")
        assert (mysql.returncode, "postgresql://" in mysql.stderr) == (1, True)
        assert "hush" not in mysql.stderr
    elsewhere = running.folder / "elsewhere"
    other = running("env", TAXIMETER_DATA_DIR=str(elsewhere))
    assert other.returncode == 1
    assert f"`taximeter up --data-dir {elsewhere}`" in other.stderr
    assert "`taximeter up`" in taximeter("env", cwd=running.folder.parent).stderr
    assert taximeter("env", "--data-dir", str(running.data)).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("credit", "acme"),
        ("up", "--nope"),
        ("nonsense",),
        ("publish", "/no/such/file"),
        ("quarantine", "show", "x"),
        ("quarantine", "list", "--workspace", "no spaces"),
        ("workspace", "show", "no spaces"),
        ("workspace", "set", "ä"),
        ("workspace", "readers", ""),
        ("workspace", "erase-payloads", "x" * 129),
        ("worker", "--loglevel", "loud"),
        ("up", "--data-dir", ""),
        ("verify", "--data-dir", ""),
        ("env", "--data-dir", __file__),
        ("prices", "explain", "--workspace", "no spaces", "--event", "e"),
        ("prices", "reprice", "--since", "2026-01-01", "--workspace", "no spaces"),
    ],
)
def test_usage_errors_exit_with_2(arguments: tuple[str, ...]):
    done = taximeter(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_an_id_that_begins_with_a_dash(running: Instance):
    told = running("workspace", "show", "-dash")
    assert told.returncode == 2
    assert "taximeter workspace show -- ID" in " ".join(told.stderr.replace("│", " ").split())
    for arguments in (("-dash", "1", "--id", "a"), ("--id", "b", "--", "-dash", "1")):
        assert running("credit", *arguments).returncode == 0
    done = running("workspace", "show", "--json", "--", "-dash")
    assert (json.loads(done.stdout)["workspace_id"], json.loads(done.stdout)["balance"]) == ("-dash", "2")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_dashboard_ends_with_0(running: Instance, number: signal.Signals):
    port = free_port()
    with subprocess.Popen(
        [*COMMAND, "dashboard", f"--port={port}"],
        cwd=running.folder,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as page:
        try:
            assert wait_until(lambda: _answers(port), 60)
            page.send_signal(number)
            assert (page.wait(30), page.stderr.read()) == (0, "")
        finally:
            page.kill()


def test_parts_log_json_where_that_is_asked_for(running: Instance, tmp_path):
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        worker = subprocess.Popen(
            [*COMMAND, "worker", "--json"],
            cwd=running.folder,
            env={**environment(), "TAXIMETER_METRICS_PORT": "0"},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
        try:
            assert wait_until(lambda: b'"broker_connected"' in log.read_bytes(), 60)
            worker.terminate()
            assert worker.wait(60) == 0
        finally:
            worker.kill()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"celery.apps.worker", "taximeter_worker.consume.consumer"} <= {line["logger"] for line in lines}
    (connected,) = (line for line in lines if line["message"] == "broker_connected")
    assert (connected["level"], connected["generation"]) == ("info", 1)


def test_the_dashboard_logs_json_where_that_is_asked_for():
    from taximeter_dashboard.auth.viewers import OWNER, Keys, Viewer
    from taximeter_dashboard.settings import Settings

    away, secret, port = f"postgresql://taximeter:not-shown@127.0.0.1:{free_port()}/taximeter", "s" * 40, free_port()
    session = Keys(Settings(database_url=away, dashboard_secret=secret)).session(Viewer("u-1", "Ada", {"acme": OWNER}))
    with subprocess.Popen(
        [*COMMAND, "dashboard", f"--port={port}", "--json"],
        env={**environment(), "TAXIMETER_DATABASE_URL": away, "TAXIMETER_DASHBOARD_SECRET": secret},
        stderr=subprocess.PIPE,
        text=True,
    ) as page:
        try:
            assert wait_until(lambda: _answers(port), 60)
            address = f"http://127.0.0.1:{port}/api/v1/workspaces/acme/summary"
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(
                    urllib.request.Request(address, headers={"cookie": f"taximeter_session={session}"}), timeout=60
                )
            with refused.value as answer:
                assert answer.code == 503
            page.terminate()
            assert page.wait(30) == 0
            lines = [json.loads(line) for line in page.stderr.read().splitlines()]
        finally:
            page.kill()
    assert lines
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert "not-shown" not in json.dumps(lines)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def test_version_is_the_packages_and_the_schemas():
    known = json.loads(taximeter("version", "--json").stdout)
    assert known["version"] == importlib.metadata.version("taximeter")
    assert known["schema"] == migrate.head()
    for words in ("--version", "version"):
        done = taximeter(words)
        assert done.returncode == 0
        assert done.stdout.startswith(f"taximeter {known['version']} (schema {known['schema']}, Python ")


def test_every_command_explains_itself():
    for command in (
        ("up",),
        ("env",),
        ("worker",),
        ("dashboard",),
        ("migrate",),
        ("workspace", "set"),
        ("workspace", "show"),
        ("credit",),
        ("publish",),
        ("quarantine", "list"),
        ("quarantine", "show"),
        ("quarantine", "replay"),
        ("quarantine", "dismiss"),
        ("prices", "export"),
        ("keys", "new"),
        ("flags", "rebuild"),
        ("verify",),
        ("checkpoint",),
    ):
        done = taximeter(*command, "--help")
        assert done.returncode == 0, command
        assert "Usage: taximeter " + " ".join(command) in done.stdout
        if command not in (("worker",), ("dashboard",)):
            assert "--json" in done.stdout, command


@pytest.mark.parametrize(("command", "extra"), [("up", "embedded"), ("verify", "worker")])
def test_a_bare_sdk_says_which_extra_to_install(command: str, extra: str):
    without_typer = (
        "import importlib.util, sys; real = importlib.util.find_spec;"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'typer' else real(name, *rest);"
        "from taximeter_cli.entry import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", without_typer, command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"pip install 'taximeter[{extra}]'" in done.stderr
