"""Settling: the write of a balance takes out the holds that have been paid for, in the same step."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
import redis

from holds.conftest import open_holds, state, warm
from taximeter import ClosedError, InsufficientCredit, InvalidEventError, Meter, names
from taximeter_cli.embedded.valkey import BROKER_DATABASE, FLAG_DATABASE, Valkey
from taximeter_db.connect import booking_connection
from taximeter_worker.background.flag_watch import FlagWatch
from taximeter_worker.errors import FlagsUnavailableError
from taximeter_worker.flags import marks
from taximeter_worker.flags.marks import HoldTerms
from taximeter_worker.flags.writer import FlagWriter, write_states
from taximeter_worker.metrics import Metrics
from waiting import eventually
from workers import Feed, Ledger, WorkerProcess, payment

CHAT = {"tool": "chat", "provider": "p", "model": "m"}
DAY_MS = 86_400_000


def test_a_balance_and_its_holds_change_in_one_step(fund: Callable[..., None], meter: Meter, redis_client: redis.Redis):
    fund("acme", "1")
    fund("beta", "1")
    mine, other = meter.hold("acme", max_cost="0.5"), meter.hold("acme", max_cost="0.1")
    theirs = meter.hold("beta", max_cost="0.5")
    states = [state("acme", "0.6", version=2), state("beta", "0.9", version=2)]
    write_states(redis_client, states, holds={"acme": [mine.id, "unknown"], "gamma": ["x"]})
    assert open_holds(redis_client) == {other.id: 100_000}
    assert open_holds(redis_client, "beta") == {theirs.id: 500_000}
    write_states(redis_client, states, holds={"acme": [mine.id, other.id]})
    assert redis_client.keys("taximeter:holds:*{acme}") == []


def test_a_newer_balance_has_paid_for_older_holds(fund: Callable[..., None], meter: Meter, redis_client: redis.Redis):
    fund("acme", "1", version=9)
    hold = meter.hold("acme", max_cost="0.5")
    assert write_states(redis_client, [state("acme", "2", version=8)], holds={"acme": [hold.id]}).refused == ["acme"]
    assert open_holds(redis_client) == {}


def test_thousands_of_holds_are_settled_at_once(fund: Callable[..., None], meter: Meter, redis_client: redis.Redis):
    fund("acme", "10")
    ids = [meter.hold("acme", max_cost="0.001").id for _ in range(2500)]
    write_states(redis_client, [state("acme", "9", version=2)], holds={"acme": ids[:2400]})
    assert sum(open_holds(redis_client).values()) == 100_000


def test_what_redis_did_not_hear_is_settled_with_the_next_write(
    own_valkey: Callable[..., Valkey],
):
    server = own_valkey()
    writer = FlagWriter(server.url(FLAG_DATABASE), 1.0)
    with server.client() as client:
        warm(client)
        write_states(client, [state("acme", "1")])
    with Meter(redis_url=server.url(FLAG_DATABASE), timeout_seconds=5) as meter:
        hold = meter.hold("acme", max_cost="0.5")
    server.stop()
    with pytest.raises(FlagsUnavailableError):
        writer.write([state("acme", "0.6", version=2)], {"acme": [hold.id]})
    server.start()
    eventually(lambda: _written(writer))
    with server.client() as client:
        assert client.keys("taximeter:holds:*") == []
    writer.close()


def _written(writer: FlagWriter) -> bool:
    try:
        return not writer.write([state("acme", "0.6", version=2)]).refused
    except FlagsUnavailableError:
        return False


def test_a_hold_whose_usage_is_in_a_spool_does_not_expire(
    fund: Callable[..., None], make_meter: Callable[..., Meter], redis_client: redis.Redis, valkey: Valkey
):
    fund("acme", "0")
    meter = make_meter(broker_url=valkey.url(BROKER_DATABASE))
    with meter.hold("acme", max_cost="0.12", ttl=0.2) as hold:
        meter.record("acme", **CHAT, quantities={"input_tokens": 5}, hold=hold)
    hold.release("has no effect any more")
    seconds, _ = redis_client.time()
    assert redis_client.zscore(names.holds_due_key("acme"), hold.id) > seconds * 1000 + 6 * DAY_MS
    with pytest.raises(InsufficientCredit):
        meter.hold("acme", max_cost="0.01")


def test_a_spool_that_refuses_leaves_an_ordinary_hold(
    fund: Callable[..., None], make_meter: Callable[..., Meter], redis_client: redis.Redis, valkey: Valkey
):
    fund("acme", "0")
    meter = make_meter(broker_url=valkey.url(BROKER_DATABASE))
    hold = meter.hold("acme", max_cost="0.12", ttl=0.5)
    meter._pipeline.close(0)
    with pytest.raises(ClosedError):
        meter.record("acme", **CHAT, quantities={"input_tokens": 5}, hold=hold)
    eventually(lambda: meter.hold("acme", max_cost="0.12", dry_run=True).granted, 20)


def test_a_hold_is_for_its_own_workspace(fund: Callable[..., None], make_meter: Callable[..., Meter], valkey: Valkey):
    fund("acme", "1")
    meter = make_meter(broker_url=valkey.url(BROKER_DATABASE))
    with meter.hold("acme", max_cost="0.1") as hold, pytest.raises(InvalidEventError):
        meter.record("beta", **CHAT, quantities={"input_tokens": 5}, hold=hold)


def test_a_hold_is_settled_by_the_usage_that_names_it(
    worker: WorkerProcess,
    feed: Feed,
    redis_url: str,
    redis_client: redis.Redis,
    ledger: Ledger,
    tmp_path: Path,
    broker_url: str,
):
    feed.pay(payment("acme", "1.00"))
    eventually(lambda: redis_client.hget(names.balance_key("acme"), "balance") == "1")
    with (
        Meter(broker_url=broker_url, redis_url=redis_url, spool=tmp_path / "s", timeout_seconds=5) as meter,
        meter.hold("acme", max_cost="0.50") as hold,
        meter.hold("acme", max_cost="0.20") as open_hold,
    ):
        meter.record("acme", **CHAT, quantities={"input_tokens": 400_000}, hold=hold)
        meter.flush(timeout=20)
        eventually(lambda: open_holds(redis_client) == {open_hold.id: 200_000})
        assert ledger.balance("acme") == "0.6"
        assert meter.hold("acme", max_cost="0.01", dry_run=True).available == Decimal("0.52")
    assert ledger.one("SELECT hold_id FROM taximeter.usage_log") == hold.id
    assert worker.stop() == 0


@pytest.mark.parametrize("point", ["before_commit", "after_commit", "before_flag", "after_flag", "before_ack"])
def test_a_worker_killed_around_the_settlement_settles_once(
    new_worker: Callable[..., WorkerProcess],
    priced_url: str,
    valkey_broker_url: str,
    redis_url: str,
    redis_client: redis.Redis,
    ledger: Ledger,
    tmp_path: Path,
    point: str,
):
    broker = valkey_broker_url
    worker = new_worker(priced_url, broker, redis_url).start()
    feed = Feed(broker)
    feed.pay(payment("acme", "1.00"))
    eventually(lambda: redis_client.hget(names.balance_key("acme"), "balance") == "1")
    assert worker.stop() == 0
    with Meter(broker_url=broker, redis_url=redis_url, spool=tmp_path / "s", timeout_seconds=5) as meter:
        with meter.hold("acme", max_cost="0.50") as hold:
            meter.record("acme", **CHAT, quantities={"input_tokens": 400_000}, hold=hold)
        meter.flush(timeout=20)
        doomed = new_worker(priced_url, broker, redis_url).start(TAXIMETER_FAILPOINT=f"{point}:1")
        assert doomed.wait(60) < 0
        assert sum(open_holds(redis_client).values()) in {0, 500_000}
        new_worker(priced_url, broker, redis_url).start()
        eventually(
            lambda: open_holds(redis_client) == {} and redis_client.hget(names.balance_key("acme"), "balance") == "0.6"
        )
        assert meter.hold("acme", max_cost="0.01", dry_run=True).available == Decimal("0.72")
    assert ledger.balance("acme") == "0.6"
    feed.close()


def test_a_server_that_lost_holds_grants_none_until_they_would_have_expired(
    own_valkey: Callable[..., Valkey], priced_url: str
):
    server = own_valkey()
    terms = HoldTerms(seconds_max=3)
    with booking_connection(priced_url) as conn, server.client() as client:
        watch = FlagWatch(FlagWriter(server.url(FLAG_DATABASE), 1.0), Metrics(), terms)
        watch(conn)
        mark = marks.read_ready(client)
        assert mark is not None
        assert mark.holds_from == 0  # a new ledger has no holds to lose
        with Meter(redis_url=server.url(FLAG_DATABASE), timeout_seconds=5) as meter:
            meter.hold("acme", max_cost="0.10", ttl=1)
            client.flushdb()
            assert _asks(meter) == "unavailable"
            watch(conn)
            assert _asks(meter) == "waits"
            eventually(lambda: _asks(meter) == "granted", 20)


def test_a_loss_that_a_worker_without_holds_was_first_to_see_is_waited_out(
    own_valkey: Callable[..., Valkey], priced_url: str
):
    """While workers are replaced, one of a version that knows no holds may have filled the server again."""
    server = own_valkey()
    with booking_connection(priced_url) as conn, server.client() as client:
        watch = FlagWatch(FlagWriter(server.url(FLAG_DATABASE), 1.0), Metrics())
        watch(conn)
        mark = marks.read_ready(client)
        assert mark is not None
        with Meter(redis_url=server.url(FLAG_DATABASE), timeout_seconds=5) as meter:
            meter.hold("acme", max_cost="0.10", ttl=60)
            client.flushdb()
            old = {"epoch": mark.epoch, "flags": mark.flags, "run": mark.run}
            client.set(names.FLAGS_READY, json.dumps(old))
            watch(conn)
            assert _asks(meter) == "waits"


def _asks(meter: Meter) -> str:
    from taximeter import HoldsUnavailableError

    try:
        return "granted" if meter.hold("acme", max_cost="0.12", dry_run=True).granted else "short"
    except HoldsUnavailableError as error:
        return "waits" if error.retry_after_seconds is not None else "unavailable"


def test_a_server_that_was_restarted_or_went_back_in_time_is_noticed_by_the_tool_itself(
    own_valkey: Callable[..., Valkey], priced_url: str
):
    """Before any worker has looked: the mark is of another run."""
    server = own_valkey()
    with booking_connection(priced_url) as conn:
        FlagWatch(FlagWriter(server.url(FLAG_DATABASE), 1.0), Metrics())(conn)
    with Meter(redis_url=server.url(FLAG_DATABASE), timeout_seconds=5) as meter:
        assert _asks(meter) == "granted"
        server.stop()
        server.start()
        eventually(lambda: _asks(meter) == "unavailable", 20)
        with booking_connection(priced_url) as conn:
            FlagWatch(FlagWriter(server.url(FLAG_DATABASE), 1.0), Metrics())(conn)
        assert _asks(meter) == "waits"


def test_a_release_that_redis_did_not_hear_is_told_again(own_valkey: Callable[..., Valkey]):
    server = own_valkey()
    with server.client() as client:
        warm(client)
        write_states(client, [state("acme", "1")])
    with Meter(redis_url=server.url(FLAG_DATABASE), timeout_seconds=0.2) as meter:
        with meter.hold("acme", max_cost="0.5", ttl=50) as hold:
            os.kill(server.pid, signal.SIGSTOP)
        assert hold.state == "released"
        os.kill(server.pid, signal.SIGCONT)
        with server.client() as client:
            eventually(lambda: client.zcard(names.holds_due_key("acme")) == 0)
