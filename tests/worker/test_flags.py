"""Flags: compare-and-set, rebuild, and a Redis that is empty, hung, gone, clustered or ahead of the database."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import structlog
from structlog.testing import LogCapture

from factories import make_payment, make_state
from taximeter import names
from taximeter_cli.embedded.process import free_port
from taximeter_cli.embedded.valkey import binary
from taximeter_db import flag_debts
from taximeter_db.connect import booking_connection
from taximeter_db.ledger import booking
from taximeter_worker.background import flag_watch
from taximeter_worker.background.flag_watch import FlagWatch
from taximeter_worker.errors import FlagsUnavailableError
from taximeter_worker.flags import marks
from taximeter_worker.flags import writer as flags
from taximeter_worker.flags.connecting import connect_flags
from taximeter_worker.flags.rebuild import rebuild
from taximeter_worker.flags.writer import FlagWriter, write_states
from taximeter_worker.metrics import Metrics
from waiting import eventually
from workers import Feed, payment, usage

USD = 10**12


def flag(client: redis.Redis, workspace: str = "acme") -> dict[str, str]:
    return client.hgetall(names.flag_key(workspace))


def balance(client: redis.Redis, workspace: str = "acme") -> dict[str, str]:
    return client.hgetall(names.balance_key(workspace))


def test_the_keys_are_those_of_the_contract(redis_client):
    written = write_states(redis_client, [make_state(balance=-USD // 10)])
    assert (written.flipped, written.refused) == (1, [])
    assert flag(redis_client) == {
        "enabled": "1",
        "status": "low",
        "epoch": "1",
        "version": "1",
        "since": "2023-11-14T22:13:20.123456Z",
    }
    assert balance(redis_client) == {"balance": "-0.1", "minimum": "-0.12", "low": "0", "epoch": "1", "version": "1"}


def test_the_flag_is_written_only_when_the_answer_changes(redis_client):
    write_states(redis_client, [make_state(balance=USD)])
    assert write_states(redis_client, [make_state(balance=2 * USD, version=2)]).flipped == 0
    assert flag(redis_client)["version"] == "1"
    assert balance(redis_client)["version"] == "2"
    assert write_states(redis_client, [make_state(balance=-USD, version=3)]).flipped == 1
    assert flag(redis_client)["enabled"] == "0"
    redis_client.delete(names.flag_key("acme"))
    assert write_states(redis_client, [make_state(balance=-USD, version=4)]).flipped == 1


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ((1, 1), (1, 2)),
        ((1, 9), (1, 10)),
        ((1, 2**53), (1, 2**53 + 1)),  # the same number to Lua
        ((1, 9_007_199_254_740_993), (2, 1)),
        ((9, 9), (10, 1)),
    ],
)
def test_an_older_writer_is_refused(redis_client, older, newer):
    write_states(redis_client, [make_state(balance=USD, epoch=newer[0], version=newer[1])])
    written = write_states(
        redis_client, [make_state(balance=-USD, epoch=older[0], version=older[1]), make_state("b", version=1)]
    )
    assert written.refused == ["acme"]
    assert flag(redis_client)["enabled"] == "1"
    assert balance(redis_client)["balance"] == "1"
    assert balance(redis_client, "b") != {}
    again = write_states(redis_client, [make_state(balance=USD, epoch=newer[0], version=newer[1])])
    assert (again.flipped, again.refused) == (0, [])


def test_one_version_with_two_balances_is_refused(redis_client):
    """The same place in order again is a repeat; with another balance it is a restored database."""
    write_states(redis_client, [make_state(balance=USD, version=3)])
    assert write_states(redis_client, [make_state(balance=USD, version=3)]).refused == []
    assert write_states(redis_client, [make_state(balance=2 * USD, version=3)]).refused == ["acme"]
    assert balance(redis_client)["balance"] == "1"
    found = marks.read_positions(redis_client, ["acme", "nobody"])
    assert found["acme"].ahead_of(make_state(balance=2 * USD, version=3))
    assert found["acme"].ahead_of(make_state(balance=USD, version=2))
    assert not found["acme"].ahead_of(make_state(balance=USD, version=3))
    assert not found["acme"].ahead_of(make_state(balance=2 * USD, version=4))
    assert not found["nobody"].ahead_of(make_state("nobody"))


@pytest.mark.parametrize("key", [names.flag_key("w9"), names.balance_key("w9")])
def test_one_key_among_many_is_enough_to_ask_for_each(redis_client, key):
    redis_client.hset(key, mapping={"epoch": "2", "version": "1", "balance": "7"})
    written = write_states(redis_client, [make_state(f"w{number}", balance=USD) for number in range(20)])
    assert (written.flipped, written.refused) == (19, ["w9"])
    assert redis_client.hget(key, "epoch") == "2"


DAMAGES = [
    ("SET", "1"),
    ("RPUSH", "0"),
    ("HSET", "epoch", "abc", "version", "abc"),
    ("HSET", "epoch", "-9", "version", "9"),
    ("HSET", "epoch", "9" * 19, "version", "1"),
]
"""What no writer of ours leaves: another type, and positions that are not numbers, or that no ledger reaches."""


@pytest.mark.parametrize("key", [names.flag_key, names.balance_key])
@pytest.mark.parametrize("damage", DAMAGES, ids=["text", "list", "letters", "negative", "endless"])
def test_what_is_none_of_ours_is_replaced_and_holds_up_no_neighbour(redis_client, key, damage):
    redis_client.execute_command(damage[0], key("w9"), *damage[1:])
    found = marks.read_positions(redis_client, ["w9"])
    assert not found["w9"].ahead_of(make_state("w9", version=1))
    written = write_states(redis_client, [make_state(f"w{number}", balance=-USD) for number in range(20)])
    assert (written.flipped, written.refused) == (20, [])
    assert flag(redis_client, "w9")["enabled"] == "0"
    assert balance(redis_client, "w9")["version"] == "1"


def test_another_error_than_of_type_is_not_taken_for_damage(redis_client, redis_url):
    write_states(redis_client, [make_state()])
    redis_client.execute_command("ACL", "SETUSER", "half", "on", ">word", "~*", "+@all", "-hmget")
    half = connect_flags(f"redis://half:word@{redis_url.rpartition('@')[2].removeprefix('redis://')}")
    try:
        with pytest.raises(redis.ResponseError, match="permission"):
            write_states(half, [make_state(version=2)])
        assert balance(redis_client)["version"] == "1"
    finally:
        half.close()
        redis_client.execute_command("ACL", "DELUSER", "half")


def test_who_is_refused_is_told_so(redis_client, redis_url):
    where = redis_url.rpartition("@")[2].removeprefix("redis://")
    redis_client.execute_command("ACL", "SETUSER", "half", "on", ">word", "~*", "+@all", "-info")
    try:
        for credentials in ("half:word", "half:wrong", "nobody:x"):
            with pytest.raises(FlagsUnavailableError, match="Redis refuses us: "):
                connect_flags(f"redis://{credentials}@{where}")
    finally:
        redis_client.execute_command("ACL", "DELUSER", "half")
    with pytest.raises(FlagsUnavailableError, match="Redis does not answer: "):
        connect_flags(f"redis://127.0.0.1:{free_port()}/0")


def test_many_workspaces_in_few_calls(redis_client):
    states = [make_state(f"w{number}", balance=-number) for number in range(1201)]
    assert write_states(redis_client, states).flipped == 1201
    assert redis_client.dbsize() == 2402


def test_a_cluster_takes_one_workspace_a_call(tmp_path: Path, booked):
    port = free_port()
    command = [binary(), "--port", str(port), "--bind", "127.0.0.1", "--cluster-enabled", "yes", "--dir", tmp_path]
    command += ["--save", "", "--cluster-config-file", "nodes.conf", "--cluster-port", str(free_port())]
    server = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
    try:
        node = redis.Redis(port=port)
        eventually(lambda: _answers(node))
        node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        eventually(lambda: node.cluster("info")["cluster_state"] == "ok")
        node.close()
        client = connect_flags(f"redis://127.0.0.1:{port}/0")
        assert isinstance(client, redis.RedisCluster)
        assert write_states(client, [make_state("a"), make_state("b"), make_state("c")]).flipped == 3
        assert client.hget(names.flag_key("b"), "enabled") == "1"
        done = rebuild(booked, client)
        assert (done.epoch, done.workspaces, done.swept) == (2, 3, 3)
        assert client.hget(names.flag_key("paid"), "enabled") == "1"
        assert not client.exists(names.flag_key("b"))
        client.set(names.flag_key("ghost"), "1")
        client.hset(names.flag_key("disabled"), "epoch", "99")
        client.hset(names.balance_key("paid"), "epoch", "abc")
        done = rebuild(booked, client)
        assert (done.epoch, done.swept) == (100, 1)
        assert [client.hget(names.flag_key(name), "enabled") for name in ("paid", "disabled")] == ["1", "0"]
        client.close()
    finally:
        server.kill()
        server.wait()


def _answers(node: redis.Redis) -> bool:
    try:
        return bool(node.ping())
    except redis.RedisError:
        return False


@pytest.fixture
def booked(priced_url: str) -> Iterator[object]:
    """A database with three workspaces: paid, owing and disabled."""
    conn = booking_connection(priced_url)
    for workspace, amount in (("paid", 5 * USD), ("owing", -USD // 10), ("disabled", -USD)):
        kind = "top_up" if amount > 0 else "adjustment"
        booking.book(conn, (), [make_payment(workspace, amount, kind=kind)])
    yield conn
    conn.close()


def test_a_rebuild_writes_everything_and_sweeps_the_unknown(redis_client, booked):
    write_states(redis_client, [make_state("ghost", epoch=7, version=5), make_state("paid", epoch=7, version=500)])
    redis_client.hset(names.flag_key("stray"), "enabled", "0")
    seen: list[int] = []
    done = rebuild(booked, redis_client, seen.append)
    assert (done.epoch, done.workspaces, done.swept, seen) == (8, 3, 2, [3])
    assert flag_debts.epoch(booked) == 8
    assert (marks.read_ready(redis_client).epoch, marks.read_ready(redis_client).flags) == (8, 3)
    assert balance(redis_client, "paid")["balance"] == "5"
    assert [flag(redis_client, name)["enabled"] for name in ("paid", "owing", "disabled")] == ["1", "1", "0"]
    assert flag(redis_client, "ghost") == flag(redis_client, "stray") == {}
    assert rebuild(booked, redis_client, only_if_cold=True) is None


def test_a_rebuild_is_above_every_position_and_repairs_what_is_damaged(redis_client, booked):
    """Whatever stands in Redis, no workspace that the database knows is without its flag afterwards."""
    rebuild(booked, redis_client)
    redis_client.hset(names.flag_key("disabled"), "epoch", "99")
    done = rebuild(booked, redis_client)
    assert (done.epoch, done.swept) == (100, 0)
    assert flag(redis_client, "disabled")["enabled"] == "0"
    assert balance(redis_client, "disabled")["epoch"] == "100"
    for key in (names.flag_key, names.balance_key):
        for damage in DAMAGES:
            redis_client.delete(key("disabled"))
            redis_client.execute_command(damage[0], key("disabled"), *damage[1:])
            redis_client.set(names.flag_key("ghost"), "1")
            before = flag_debts.epoch(booked)
            done = rebuild(booked, redis_client)
            assert (done.epoch, done.workspaces, done.swept) == (before + 1, 3, 1)
            assert flag(redis_client, "disabled")["enabled"] == "0"
            assert not redis_client.exists(names.flag_key("ghost"))


def test_a_rebuild_over_many_pages(redis_client, booked, monkeypatch):
    """More chunks than are in flight, more pages of keys than one; epochs beyond what is a number to Lua."""
    monkeypatch.setattr("taximeter_worker.flags.rebuild.CHUNK_WORKSPACES", 1)
    epoch = 2**53 + 1
    write_states(redis_client, [make_state(f"ghost{number}", epoch=epoch - number % 2) for number in range(2500)])
    seen: list[int] = []
    done = rebuild(booked, redis_client, seen.append)
    assert (done.epoch, done.workspaces, done.swept, seen) == (epoch + 1, 3, 2500, [1, 2, 3])
    assert redis_client.dbsize() == 2 * 3 + 1
    assert rebuild(booked, redis_client).swept == 0


def test_a_flushed_redis_is_filled_again(new_runtime, booked, redis_client, valkey_broker_url):
    new_runtime(valkey_broker_url)
    eventually(lambda: redis_client.exists(names.FLAGS_READY))
    assert flag(redis_client, "disabled")["enabled"] == "0"
    redis_client.flushdb()
    eventually(lambda: redis_client.exists(names.FLAGS_READY))
    assert flag(redis_client, "disabled")["enabled"] == "0"


# Far ahead, or just as far as the next booking takes the database: one large batch was lost.
@pytest.mark.parametrize("version", [10_000, 2])
def test_a_restored_database_gets_its_flags_back(new_runtime, booked, ledger, redis_client, valkey_broker_url, version):
    """Redis contradicts the database: a backup was put back. The next booking notices, and all flags are rebuilt."""
    new_runtime(valkey_broker_url)
    eventually(lambda: redis_client.exists(names.FLAGS_READY))
    epoch = flag_debts.epoch(booked)
    write_states(
        redis_client,
        [make_state("paid", -9 * USD, epoch=epoch, version=version), make_state("lost", epoch=epoch, version=1)],
    )
    assert flag(redis_client, "paid")["enabled"] == "0"
    feed = Feed(valkey_broker_url)
    feed.send(usage("paid", 1000))
    eventually(lambda: flag(redis_client, "paid").get("enabled") == "1")
    eventually(lambda: balance(redis_client, "paid").get("balance") == "4.999")
    eventually(lambda: ledger.one("SELECT count(*) FROM taximeter.stale_flags") == 0)
    assert flag_debts.epoch(booked) == epoch + 1
    feed.close()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, None),
        ({"position": 0}, None),
        ({"position": 2**62}, ("critical", "database_behind_flags")),
        ({"timeline": "000000FF"}, ("warning", "database_promoted")),
        ({"timeline": "000000FF", "position": 2**62}, ("critical", "database_behind_flags")),
        ({"system": 7}, ("critical", "database_behind_flags")),
    ],
    ids=["nothing", "further on", "back in time", "promoted", "another timeline, back in time", "another cluster"],
)
def test_flags_are_rebuilt_where_history_is_another(booked, redis_client, redis_url, changed, told, monkeypatch):
    """A promotion is reported as one, and not as a backup that was put back."""
    rebuilt, lines = told is not None, LogCapture()
    logger = structlog.wrap_logger(None, wrapper_class=structlog.stdlib.BoundLogger, processors=[lines])
    monkeypatch.setattr(flag_watch, "log", logger)
    watch = FlagWatch(FlagWriter(redis_url, 1.0), Metrics())
    watch(booked)
    seen = marks.read_cluster_position(redis_client)
    epoch = flag_debts.epoch(booked)
    write_states(redis_client, [make_state("paid", -9 * USD, epoch=epoch, version=500)])
    marks.note_cluster_position(redis_client, seen._replace(**changed))
    watch(booked)
    assert flag_debts.epoch(booked) == epoch + rebuilt
    assert flag(redis_client, "paid")["enabled"] == str(int(rebuilt))
    assert redis_client.exists(names.FLAGS_READY)
    assert not marks.read_cluster_position(redis_client).went_back_from(seen)
    watch(booked)
    assert flag_debts.epoch(booked) == epoch + rebuilt
    of_history = [(line["log_level"], line["event"]) for line in lines.entries if line["event"].startswith("database")]
    assert of_history == ([told] if told else []), "once"


@pytest.mark.parametrize("text", ["", "words", "1 2", "1 00000001 x", None])
def test_a_place_that_nobody_can_read_is_none(redis_client, text):
    redis_client.set(names.CLUSTER_POSITION, text) if text is not None else redis_client.rpush(
        names.CLUSTER_POSITION, "1"
    )
    assert marks.read_cluster_position(redis_client) is None


def test_booking_goes_on_without_redis_and_the_debt_is_paid(new_runtime, own_valkey, ledger, valkey_broker_url):
    server = own_valkey()
    runtime = new_runtime(valkey_broker_url, redis_url=server.url(0), redis_timeout_seconds=0.3)
    client = redis.Redis.from_url(server.url(0), decode_responses=True)
    eventually(lambda: client.exists(names.FLAGS_READY))
    feed = Feed(valkey_broker_url)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        for number in range(20):
            feed.send(usage("acme", 100_000), usage(f"w{number}"))
        eventually(lambda: ledger.usages == 40)
        eventually(lambda: ledger.one("SELECT count(*) FROM taximeter.stale_flags") == 21)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    eventually(lambda: client.hget(names.flag_key("acme"), "enabled") == "0")
    eventually(lambda: ledger.one("SELECT count(*) FROM taximeter.stale_flags") == 0)
    assert balance(client, "w19")["balance"] == "-0.001"
    assert runtime.metrics.registry.get_sample_value("taximeter_flag_write_failures_total") >= 21
    feed.close()
    client.close()


def test_a_refusing_redis_costs_one_timeout_then_none(free_tcp_port: int):
    writer = FlagWriter(f"redis://127.0.0.1:{free_tcp_port}/0", 0.2)
    for _ in range(3):
        with pytest.raises(FlagsUnavailableError):
            writer.call(flags.write_states, [make_state()])
    assert not writer.available


def test_a_hung_redis_is_asked_once(own_valkey, monkeypatch):
    """Neither redis-py, which can be told to repeat, nor the next batch asks it another time."""
    monkeypatch.setattr(flags, "BREAKER_SECONDS", 60.0)
    server = own_valkey()
    writer = FlagWriter(server.url(0), 0.2)
    with server.client() as client:
        writer.call(flags.write_states, [make_state()])
        before = client.info("stats")["total_connections_received"]
        os.kill(server.pid, signal.SIGSTOP)
        try:
            for _ in range(3):
                with pytest.raises(FlagsUnavailableError):
                    writer.call(flags.write_states, [make_state()])
        finally:
            os.kill(server.pid, signal.SIGCONT)
        # Every further try would have connected again.
        assert client.info("stats")["total_connections_received"] == before
    writer.close()


@pytest.fixture
def free_tcp_port() -> int:
    return free_port()


def test_a_payment_enables_again(runtime, feed, redis_client):
    feed.send(usage("acme", 500_000))
    eventually(lambda: flag(redis_client).get("enabled") == "0")
    feed.pay(payment("acme", "0.379999999999"))
    eventually(lambda: balance(redis_client).get("balance") == "-0.120000000001")
    assert flag(redis_client)["enabled"] == "0"
    feed.pay(payment("acme", "0.000000000001"))
    eventually(lambda: flag(redis_client).get("enabled") == "1")
    assert flag(redis_client)["status"] == "low"
