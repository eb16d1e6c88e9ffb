"""A Redis that does not push changes, or is a cluster; and what the log says of outages."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from proxy import Proxy
from servers import require
from taximeter import ConfigurationError, Meter, names
from taximeter.flags import cache, tracking
from waiting import eventually


def set_flag(client: Any, enabled: int) -> None:
    status = "sufficient" if enabled else "insufficient"
    client.hset(names.flag_key("acme"), mapping={"enabled": enabled, "status": status})


READER = ["+exists", "+hgetall", "+multi", "+exec", "+ping", "+hello", "+select"]


def address_of_tool(server: Any) -> str:
    return f"redis://tool:secret@{server.url(0).rpartition('@')[2]}"


def refuse_by_acl(server: Any, admin: Any) -> str:
    admin.acl_setuser("tool", enabled=True, passwords=["+secret"], keys=["*"], categories=["-@all"], commands=READER)
    return address_of_tool(server)


def follow_by_polling(url: str, client: Any, make_meter: Callable[..., Meter], log: pytest.LogCaptureFixture) -> None:
    set_flag(client, 1)
    with log.at_level(logging.INFO, "taximeter"):
        meter = make_meter(redis_url=url, timeout_seconds=5)
        assert meter.enabled("acme")
        for enabled in (False, True, False):
            set_flag(client, int(enabled))
            eventually(lambda expected=enabled: meter.enabled("acme") is expected)  # type: ignore[misc]
        assert meter.status("acme").status == "insufficient"
        # Between two looks the answer grows stale, and status() says so: a heartbeat does not vouch for it.
        eventually(lambda: (meter.status("acme").stale_seconds or 0) > tracking.HEARTBEAT_SECONDS + 0.1)
    assert [r.levelname for r in log.records if "read again every second" in r.message] == ["WARNING"]
    assert "secret" not in log.text


def test_a_redis_that_may_not_push_is_polled_and_says_how_stale_it_is(
    own_valkey: Callable[..., Any], make_meter: Callable[..., Meter], caplog: pytest.LogCaptureFixture
) -> None:
    server = own_valkey()
    with server.client() as client:
        follow_by_polling(refuse_by_acl(server, client), client, make_meter, caplog)


def answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, protocol=2) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.fixture(params=["", "secret"])
def old_redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A Redis that does not know HELLO, with a password or without."""
    binary = shutil.which("redis-server")
    require("Redis", binary, "install redis-server")
    address = tmp_path / "redis.sock"
    arguments = ["--port", "0", "--unixsocket", str(address), "--save", "", "--rename-command", "HELLO", ""]
    if request.param:
        arguments += ["--requirepass", request.param]
    with subprocess.Popen([str(binary), *arguments], cwd=tmp_path, stdout=subprocess.DEVNULL) as server:
        url = f"unix://{f':{request.param}@' if request.param else ''}{address}?db=0"
        eventually(lambda: answers(url))
        yield url
        server.kill()


def test_a_redis_that_knows_the_old_protocol_only_is_polled(
    old_redis: str, make_meter: Callable[..., Meter], caplog: pytest.LogCaptureFixture
) -> None:
    with redis.Redis.from_url(old_redis, protocol=2) as client:
        follow_by_polling(old_redis, client, make_meter, caplog)


def test_tracking_begins_once_it_is_allowed(
    own_valkey: Callable[..., Any], make_meter: Callable[..., Meter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "TRY_TRACKING_AGAIN_SECONDS", 0.1)
    server = own_valkey()
    with server.client() as client:
        set_flag(client, 1)
        meter = make_meter(redis_url=refuse_by_acl(server, client), timeout_seconds=5)
        assert meter.enabled("acme")
        client.acl_setuser("tool", commands=["+client"])
        eventually(lambda: client.info("clients")["tracking_clients"] == 1)
        assert meter.enabled("acme")
        set_flag(client, 0)
        eventually(lambda: meter._answers.get("acme") is False)  # nobody asked: it was pushed


def test_a_cluster_is_rejected_at_the_start(own_valkey: Callable[..., Any], make_meter: Callable[..., Meter]) -> None:
    server = own_valkey({"cluster-enabled": "yes"})
    with pytest.raises(ConfigurationError, match=r"TAXIMETER_REDIS_URL leads to a Redis Cluster"):
        make_meter(redis_url=server.url(0))


def test_a_cluster_that_is_met_only_later_is_named_in_the_log(
    own_valkey: Callable[..., Any], make_meter: Callable[..., Meter], caplog: pytest.LogCaptureFixture
) -> None:
    server = own_valkey({"cluster-enabled": "yes"})
    server.kill()
    with caplog.at_level(logging.WARNING, "taximeter"):
        meter = make_meter(redis_url=server.url(0), on_unknown="closed")
        server.start()
        eventually(lambda: meter._flags is not None and meter._flags._tracking.rejected is not None, 60)
    assert not meter.enabled("acme"), "answered by policy, never by a part of the flags"
    with pytest.raises(ConfigurationError, match=r"TAXIMETER_REDIS_URL leads to a Redis Cluster"):
        make_meter(redis_url=server.url(0))


def test_an_outage_is_logged_once_and_so_is_its_end(
    own_valkey: Callable[..., Any], make_meter: Callable[..., Meter], caplog: pytest.LogCaptureFixture
) -> None:
    server = own_valkey()
    with caplog.at_level(logging.INFO, "taximeter"), server.client() as client:
        set_flag(client, 1)
        meter = make_meter(broker_url=server.url(1), redis_url=server.url(0), timeout_seconds=5)
        assert meter.enabled("acme")
        meter.record("acme", tool="chat", quantities={"requests": 1})
        meter.flush(20)
        server.kill()
        meter.record("acme", tool="chat", quantities={"requests": 1})
        assert meter._flags is not None
        back_off = meter._flags._tracking.back_off
        eventually(lambda: meter.stats().failures >= 4 and back_off.failures >= 4, 60)
        server.start()
        meter.flush(60)
        eventually(lambda: "acme" in meter._answers or not meter.enabled("acme"), 60)
        eventually(lambda: "flags can be read again" in caplog.text, 60)
    lines = [record.message for record in caplog.records if "idle" not in record.message]
    for begin, end in (("cannot publish", "publishing again"), ("flags cannot be read", "flags can be read again")):
        told = [line for line in lines if line.startswith((begin, end))]
        assert [line.startswith(end) for line in told] == [False, True]
        assert "failures" in told[1]


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", int(redis_url.rpartition(":")[2].partition("/")[0])) as running:
        yield running


def lose_the_flag(meter: Meter, proxy: Proxy, client: Any) -> None:
    """What a restart does that keeps the mark and loses flags, as seen by a tool."""
    client.set(names.FLAGS_READY, "1")
    set_flag(client, 0)
    assert not meter.enabled("acme")
    assert meter.enabled("new")
    proxy.refuse()
    eventually(lambda: not meter._answers)
    client.delete(names.flag_key("acme"))
    proxy.refuse(False)


def test_a_flag_that_is_gone_after_an_outage_is_not_a_new_workspaces(
    redis_url: str,
    redis_client: Any,
    proxy: Proxy,
    make_meter: Callable[..., Meter],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cache, "DOUBT_SECONDS", 3600.0)
    meter = make_meter(redis_url=proxy.url(redis_url), timeout_seconds=5)
    lose_the_flag(meter, proxy, redis_client)
    eventually(lambda: meter.enabled("new") and "new" in meter._answers)  # connected again, and it is warm
    for _ in range(20):
        assert not meter.enabled("acme"), "the last known answer stands while the mark is in doubt"
    set_flag(redis_client, 1)
    eventually(lambda: meter.enabled("acme"))  # a worker has rebuilt the flags


def test_the_doubt_ends(
    redis_url: str,
    redis_client: Any,
    proxy: Proxy,
    make_meter: Callable[..., Meter],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cache, "DOUBT_SECONDS", 0.2)
    meter = make_meter(redis_url=proxy.url(redis_url), timeout_seconds=5)
    lose_the_flag(meter, proxy, redis_client)
    eventually(lambda: meter.enabled("acme") and "acme" in meter._answers)


def test_any_number_of_failed_connections_is_survived(
    redis_url: str,
    redis_client: Any,
    proxy: Proxy,
    make_meter: Callable[..., Meter],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """redis-py's pools make a hundred connections in their life."""
    monkeypatch.setattr(tracking, "BACK_OFF_FIRST_SECONDS", 0.001)
    monkeypatch.setattr(tracking, "BACK_OFF_MAX_SECONDS", 0.001)
    set_flag(redis_client, 1)
    meter = make_meter(redis_url=proxy.url(redis_url), timeout_seconds=5)
    assert meter.enabled("acme")
    proxy.refuse()
    assert meter._flags is not None
    back_off = meter._flags._tracking.back_off
    eventually(lambda: back_off.failures > 150, 60)
    set_flag(redis_client, 0)
    proxy.refuse(False)
    eventually(lambda: not meter.enabled("acme"))
