"""Valkey's users, on a real server: a tool reads flags and, where Valkey is the broker, appends usage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from holds.conftest import state, warm
from servers.shipped_redis import USER_SUFFIX
from taximeter import Hold, HoldsUnavailableError, Meter, limits, names
from taximeter.holds.server import HoldServer
from taximeter_cli.embedded import acl
from taximeter_cli.embedded.valkey import BROKER_DATABASE, Valkey
from taximeter_worker.flags.scripts import load_hold_script
from taximeter_worker.flags.writer import write_states
from waiting import eventually
from workers import Ledger, WorkerProcess

ALLOWED = {
    *("hget", "hgetall", "exists", "multi", "exec", "ping", "select", "lpush"),
    *("client|tracking", "client|setname", "client|id", "subscribe", "unsubscribe"),
    # for holds
    *("get", "time", "evalsha", "hmget", "hset", "hdel", "del", "pexpire"),
    *("zadd", "zrem", "zscore", "zcard", "zrangebyscore"),
    # before and after a connection belongs to anybody: no user can be kept from them
    *("auth", "hello", "quit", "reset"),
}
QUANTITIES = {"input_tokens": 1000}


def test_a_system_in_which_each_part_has_its_own_user(
    valkey_user: Callable[[str, int], str],
    new_worker: Callable[..., WorkerProcess],
    priced_url: str,
    ledger: Ledger,
    tmp_path: Path,
    valkey: Valkey,
):
    broker, flags = (valkey_user("worker", BROKER_DATABASE), valkey_user("worker", 0))
    worker = new_worker(priced_url, broker, flags).start()
    eventually(lambda: worker.connected)
    urls = {"broker_url": valkey_user("tool", BROKER_DATABASE), "redis_url": valkey_user("tool", 0)}
    with Meter(**urls, spool=tmp_path / "spool", timeout_seconds=2) as meter:
        assert meter.enabled("acme")
        hold = eventually(lambda: _hold(meter), what="a worker loads the script of holds")
        usage = {"tool": "chat", "provider": "p", "model": "m", "quantities": {"input_tokens": 130_000}}
        meter.record("acme", **usage, hold=hold)
        meter.flush(timeout=20)
        eventually(lambda: not meter.enabled("acme"), what="the flip is pushed to a tool with a tool's rights")
    with valkey.client() as admin:
        admin.flushall()
    eventually(lambda: _enabled(valkey, "acme") == b"0", what="the worker rebuilds the flags")
    assert worker.stop() == 0
    assert "NOPERM" not in worker.text()
    assert ledger.usages == 1
    with valkey.client() as admin:
        assert admin.exists(names.holds_key("acme")) == 0


def _hold(meter: Meter) -> Hold | None:
    try:
        return meter.hold("acme", max_cost="0.12")
    except HoldsUnavailableError:  # the tool may not load the script itself
        return None


def _enabled(valkey: Valkey, workspace_id: str) -> Any:
    with valkey.client() as admin:
        return admin.hget(names.flag_key(workspace_id), "enabled")


def test_a_tool_may_call_nothing_else(as_user: Callable[..., redis.Redis], valkey: Valkey):
    as_user("tool")
    tried = 0
    with valkey.client() as admin:
        commands = {raw.decode() for raw in admin.execute_command("COMMAND LIST")}
        for name in sorted(commands):
            # of a command with sub-commands, each of them
            inner = admin.execute_command("COMMAND LIST", "FILTERBY", "PATTERN", f"{name}|*")
            for full in [one.decode() for one in inner] or [name]:
                answer = _dry_run(admin, full)
                assert (answer == "allowed") == (full in ALLOWED), f"{full}: {answer}"
                tried += 1
    assert tried > 300


def _dry_run(admin: redis.Redis, full: str) -> str:
    """What ACL DRYRUN says of a command with as many arguments as it takes."""
    words = full.split("|")
    for more in range(12):
        try:
            answer = admin.execute_command("ACL DRYRUN", f"tool{USER_SUFFIX}", *words, *["taximeter.usage"] * more)
        except redis.ResponseError as error:
            if "number of arg" in str(error):
                continue
            return str(error)
        return "allowed" if answer in {b"OK", "OK", True} else _said(answer)
    return "no number of arguments fits"


def _said(answer: Any) -> str:
    text = answer.decode() if isinstance(answer, bytes) else str(answer)
    # A refused key or channel means that the command itself is allowed.
    return "allowed" if "no permissions to access" in text else text


@pytest.mark.parametrize(
    "command",
    [
        ("HGETALL", "taximeter:balance:{acme}"),
        ("HSET", "taximeter:flag:{acme}", "enabled", "1"),
        ("HSET", "taximeter:balance:{acme}", "balance", "1"),
        ("EVALSHA", "0" * 40, "1", "taximeter:flag:{acme}"),
        ("INFO",),
        ("LPUSH", "taximeter.payment", "x"),
        ("LPUSH", names.TASK_QUEUE, "x"),
        ("LPUSH", "taximeter.usage:processing:1", "x"),
        ("LPUSH", "taximeter.usage.1:processing:1", "x"),
        ("LRANGE", "taximeter.usage", "0", "-1"),
        ("RPOP", "taximeter.usage"),
        ("LPUSH", "taximeter:flag:{acme}", "x"),
        ("EVAL", "return redis.call('HSET', 'taximeter:flag:{acme}', 'enabled', '1')", "0"),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        ("MONITOR",),
        ("FLUSHALL",),
        ("DEL", "taximeter:flags:ready"),
        ("SUBSCRIBE", "x"),
    ],
)
def test_a_tool_is_refused(as_user: Callable[..., redis.Redis], command: tuple[str, ...]):
    with pytest.raises(redis.exceptions.NoPermissionError):
        as_user("tool").execute_command(*command)


def test_a_tool_cannot_push_what_fills_a_worker(as_user: Callable[..., redis.Redis]):
    """Twice a message's limit is taken, and quarantined by the worker with a reason; the server hangs up on more."""
    tool = as_user("tool", BROKER_DATABASE)
    tool.lpush(names.USAGE_QUEUE, b"x" * 2 * limits.MESSAGE_BYTES_MAX)
    with pytest.raises((redis.exceptions.RedisError, OSError)):
        tool.lpush(names.USAGE_QUEUE, b"x" * (2 * limits.MESSAGE_BYTES_MAX + 1))


def test_the_page_sees_what_is_held_and_nothing_else(
    as_user: Callable[..., redis.Redis], valkey_user: Callable[[str, int], str], redis_client: redis.Redis
):
    page = as_user("dashboard")
    warm(redis_client)
    write_states(redis_client, [state("acme", "1.00")])
    load_hold_script(redis_client)
    with Meter(redis_url=valkey_user("tool", 0), timeout_seconds=5) as meter:
        meter.hold("acme", max_cost="0.25")
        expired = meter.hold("acme", max_cost="0.5", ttl=3600)
        redis_client.zadd(names.holds_due_key("acme"), {expired.id: 1})
        assert HoldServer.for_reading(valkey_user("dashboard", 0), 5).held("acme") == 250_000
    for command in (
        ("HGETALL", "taximeter:balance:{acme}"),
        ("HGET", "taximeter:flag:{acme}", "enabled"),
        ("HSET", "taximeter:balance:{acme}", "balance", "1"),
        ("EVALSHA", "0" * 40, "1", "taximeter:flag:{acme}"),
        ("EVAL", "return 1", "0"),
        ("LPUSH", names.USAGE_QUEUE, "x"),
        ("ZADD", "taximeter:holds:due:{acme}", "1", "x"),
        ("KEYS", "*"),
        ("FLUSHALL",),
    ):
        with pytest.raises(redis.exceptions.NoPermissionError):
            page.execute_command(*command)


@pytest.mark.parametrize(
    "command", [("FLUSHALL",), ("CONFIG", "GET", "*"), ("ACL", "LIST"), ("SHUTDOWN",), ("SET", "mine", "1")]
)
def test_a_worker_administers_nothing(as_user: Callable[..., redis.Redis], command: tuple[str, ...]):
    with pytest.raises(redis.exceptions.NoPermissionError):
        as_user("worker").execute_command(*command)


def test_up_has_the_users_of_the_deployment():
    lines = (Path(__file__).parents[2] / "deploy" / "valkey" / "users.in.acl").read_text().splitlines()
    found = dict(
        line.removeprefix("user ").split(" on ", 1) for line in lines if line.startswith("user ") and " on " in line
    )
    rules = {name: text.split("} ", 1)[1] for name, text in found.items()}
    assert rules.pop("health") == "resetchannels -@all +ping"
    assert rules.pop("admin") == "allchannels allkeys +@all"
    assert rules == acl.USERS
