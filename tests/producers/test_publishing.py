from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_events import payment_event
from proxy import Proxy
from taximeter import ClosedError, ConfigurationError, FlushTimeoutError, InvalidEventError, Meter, names
from taximeter.brokers import rabbitmq, redis
from taximeter.spool import publisher
from waiting import eventually

REQUEST = {"tool": "chat", "quantities": {"requests": 1}}
PAYMENT = payment_event(event_id="p-1")


def through(proxy: Proxy, url: str) -> str:
    return proxy.url(url)


def port_of(url: str) -> int:
    return int(url.rpartition("@")[2].removeprefix("redis://").partition("/")[0].rpartition(":")[2])


@pytest.fixture
def proxy(broker: Any) -> Any:
    with Proxy("127.0.0.1", port_of(broker.url)) as running:
        yield running


def test_recorded_events_arrive_in_order_and_packed(broker: Any, make_meter: Callable[..., Meter]) -> None:
    meter = make_meter(broker_url=broker.url, linger_seconds=0.05, source="/tools/chat")
    ids = [meter.record("acme", **REQUEST) for _ in range(1200)]
    meter.flush(20)
    bodies = [json.loads(body) for body in broker.messages()]
    assert [event["id"] for body in bodies for event in body] == ids
    assert len(bodies) < 30
    assert max(len(body) for body in bodies) <= 500
    assert bodies[0][0]["source"] == "/tools/chat"
    stats = meter.stats()
    assert (stats.recorded, stats.published, stats.confirmed) == (1200, 1200, 1200)
    assert (stats.spooled_events, stats.spooled_bytes, stats.oldest_unpublished_seconds) == (0, 0, None)
    assert (stats.failures, stats.last_error) == (0, None)


def test_nothing_is_left_on_disk_after_a_clean_close(
    broker: Any, make_meter: Callable[..., Meter], tmp_path: Path
) -> None:
    with make_meter(broker_url=broker.url) as meter:
        meter.record("acme", **REQUEST)
        meter.publish_event(PAYMENT)
    assert list((tmp_path / "spool").iterdir()) == []
    assert len(broker.events()) == 1
    assert broker.events(names.PAYMENT_QUEUE) == [PAYMENT]


def test_messages_stay_below_the_limit_of_bytes(broker: Any, make_meter: Callable[..., Meter]) -> None:
    meter = make_meter(broker_url=broker.url, linger_seconds=0.05)
    for _ in range(30):
        meter.record("acme", **REQUEST, input="x" * 60_000)
    meter.record("acme", **REQUEST, input="y" * 900_000)
    meter.flush(20)
    sizes = [len(body) for body in broker.messages()]
    assert sum(size > 256 * 1024 for size in sizes) == 1, "only the one that is larger by itself"
    assert max(sizes) > 900_000


def test_an_event_over_the_limit_is_refused(broker: Any, make_meter: Callable[..., Meter]) -> None:
    meter = make_meter(broker_url=broker.url, event_bytes_max=2000)
    with pytest.raises(InvalidEventError, match="too_large"):
        meter.record("acme", **REQUEST, input="x" * 2000)
    with pytest.raises(InvalidEventError, match="too_large"):
        meter.publish_event({**PAYMENT, "data": {"note": "x" * 2000}})
    assert meter.stats().recorded == 0


def test_text_arrives_byte_for_byte(broker: Any, make_meter: Callable[..., Meter]) -> None:
    meter = make_meter(broker_url=broker.url)
    for text in ("a\0b", "\ud800", "é\n…", "NaN", "],["):
        meter.record("acme", **REQUEST, input=text, metadata={"text": text})
    meter.flush(20)
    assert [event["data"]["input"] for event in broker.events()] == ["a\0b", "\ud800", "é\n…", "NaN", "],["]


def test_events_wait_for_a_broker_that_is_not_there_yet(
    broker: Any, proxy: Proxy, make_meter: Callable[..., Meter]
) -> None:
    proxy.refuse()
    meter = make_meter(broker_url=proxy.url(broker.url))
    ids = [meter.record("acme", **REQUEST) for _ in range(50)]
    with pytest.raises(FlushTimeoutError, match="50 events are still spooled") as late:
        meter.flush(0.5)
    assert late.value.spooled == 50
    stats = meter.stats()
    assert (stats.spooled_events, stats.confirmed) == (50, 0)
    assert stats.failures >= 1
    assert stats.last_error
    assert stats.oldest_unpublished_seconds is not None
    proxy.refuse(False)
    meter.flush(20)
    assert [event["id"] for event in broker.events()] == ids
    assert meter.stats().last_error is None


def test_a_lost_confirm_costs_a_duplicate_and_no_event(
    broker: Any, proxy: Proxy, make_meter: Callable[..., Meter]
) -> None:
    meter = make_meter(broker_url=proxy.url(broker.url))
    first = meter.record("acme", **REQUEST)
    meter.flush(20)
    # basic.ack is method 60.80 of AMQP; the reply to LPUSH is the length of the list.
    swallowed = proxy.drop_reply(b"\x00\x3c\x00\x50" if broker.url.startswith("amqp") else b":")
    second = meter.record("acme", **REQUEST)
    meter.flush(20)
    assert swallowed.is_set()
    assert [event["id"] for event in broker.events()] == [first, second, second]


def test_cut_connections_lose_nothing_and_keep_the_order(
    broker: Any, proxy: Proxy, make_meter: Callable[..., Meter]
) -> None:
    proxy.slice(7)
    meter = make_meter(broker_url=proxy.url(broker.url), batch_events_max=20)
    ids, published_at_cut = [], 0
    for number in range(600):
        ids.append(meter.record("acme", **REQUEST))
        if number % 150 == 149:
            # In the middle of the stream, each time somewhere else.
            eventually(lambda before=published_at_cut: meter.stats().published > before)  # type: ignore[misc]
            proxy.cut()
            published_at_cut = meter.stats().published
    meter.flush(30)
    arrived = [event["id"] for event in broker.events()]
    assert list(dict.fromkeys(arrived)) == ids, "first arrivals are in order, repetitions come later"


def test_a_stalled_broker_never_holds_up_flush_and_close(
    broker: Any, proxy: Proxy, make_meter: Callable[..., Meter]
) -> None:
    meter = make_meter(broker_url=proxy.url(broker.url))
    meter.record("acme", **REQUEST)
    meter.flush(20)
    proxy.stall()
    # The window is more than the sockets' buffers take: the publisher hangs in the middle of a write.
    for _ in range(12):
        meter.record("acme", **REQUEST, input="x" * 900_000)
    with pytest.raises(FlushTimeoutError, match="12 events"):
        meter.flush(0.5)
    meter.record("acme", **REQUEST)
    meter.close(timeout=0.5)
    proxy.resume()  # only now: neither waited for the broker
    after = make_meter(broker_url=broker.url)
    after.flush(20)
    assert len({event["id"] for event in broker.events()}) == 14


@pytest.mark.parametrize("in_a_write", [False, True])
def test_a_hung_connection_is_given_up(
    broker: Any, proxy: Proxy, make_meter: Callable[..., Meter], monkeypatch: pytest.MonkeyPatch, in_a_write: bool
) -> None:
    """Neither a confirm that never comes nor a write that nobody takes is waited for without end."""
    if in_a_write:
        monkeypatch.setattr(rabbitmq, "WRITE_TIMEOUT_SECONDS", 1.0)
    else:
        monkeypatch.setattr(publisher, "CONFIRM_TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr(redis, "TIMEOUT_SECONDS", 1.0)
    meter = make_meter(broker_url=proxy.url(broker.url))
    meter.record("acme", **REQUEST)
    meter.flush(20)
    proxy.stall()
    for _ in range(12):
        meter.record("acme", **REQUEST, input="x" * (900_000 if in_a_write else 10))
    eventually(lambda: meter.stats().failures > 0)
    proxy.resume()
    meter.flush(30)
    assert len({event["id"] for event in broker.events()}) == 13


def test_the_interpreter_exits_in_spite_of_a_stalled_broker(
    broker: Any, proxy: Proxy, tmp_path: Path, make_meter: Callable[..., Meter], environment: dict[str, str]
) -> None:
    script = """
import sys, time
from taximeter import Meter
meter = Meter.from_env()
meter.record("acme", tool="chat", quantities={"requests": 1})
meter.flush(20)
print("stall", flush=True)
sys.stdin.readline()
meter.record("acme", tool="chat", quantities={"requests": 1})
"""
    settings = {"TAXIMETER_BROKER_URL": proxy.url(broker.url), "TAXIMETER_SPOOL": str(tmp_path / "spool")}
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, **settings},
    ) as tool:
        assert tool.stdout is not None
        assert tool.stdout.readline() == "stall\n"
        proxy.stall()
        _, complaint = tool.communicate("go\n", timeout=30)
    assert tool.returncode == 0, complaint
    assert "1 events stay in the spool" in complaint
    proxy.resume()
    make_meter(broker_url=broker.url).flush(20)
    assert len({event["id"] for event in broker.events()}) == 2


def test_unroutable_events_stay_spooled_until_the_queue_exists(rabbit: Any, make_meter: Callable[..., Meter]) -> None:
    meter = make_meter(broker_url=rabbit.url)
    event_id = meter.record("acme", **REQUEST)
    with pytest.raises(FlushTimeoutError, match=r"no exchange .* has a worker ever"):
        meter.flush(1)  # not even the exchange
    rabbit.declare()
    with pytest.raises(FlushTimeoutError, match="has a worker ever been started"):
        meter.flush(3)
    rabbit.declare("usage")
    meter.flush(20)
    assert [event["id"] for event in rabbit.events()] == [event_id]


def test_an_unroutable_payment_does_not_hold_up_usages(rabbit: Any, make_meter: Callable[..., Meter]) -> None:
    rabbit.declare("usage")
    meter = make_meter(broker_url=rabbit.url)
    meter.publish_event(PAYMENT)
    eventually(lambda: meter.stats().failures > 0)
    event_id = meter.record("acme", **REQUEST)
    eventually(lambda: meter.stats().confirmed == 1)
    assert [event["id"] for event in rabbit.events()] == [event_id]
    assert meter.stats().spooled_events == 1
    rabbit.declare("payment")
    meter.flush(20)
    assert rabbit.events(names.PAYMENT_QUEUE) == [PAYMENT]


def test_a_memory_alarm_a_kill_and_a_restart_of_rabbitmq_lose_nothing(
    own_rabbitmq: Callable[[], Any], broker_at: Callable[[str], Any], make_meter: Callable[..., Meter]
) -> None:
    node = own_rabbitmq()
    broker = broker_at(node.url())
    broker.declare("usage")
    meter = make_meter(broker_url=node.url())
    ids = [meter.record("acme", **REQUEST)]
    meter.flush(20)
    node.ctl("set_vm_memory_high_watermark", "0")
    ids += [meter.record("acme", **REQUEST) for _ in range(20)]
    with pytest.raises(FlushTimeoutError, match="20 events"):
        meter.flush(1)
    node.ctl("set_vm_memory_high_watermark", "0.6")
    meter.flush(30)
    node.let_queues_settle()
    node.kill()
    ids += [meter.record("acme", **REQUEST) for _ in range(20)]
    node.start()
    meter.flush(60)
    assert list(dict.fromkeys(event["id"] for event in broker.events())) == ids


def test_a_meter_without_a_broker_says_so(redis_url: str, make_meter: Callable[..., Meter]) -> None:
    meter = make_meter(redis_url=redis_url)
    for call in (lambda: meter.record("acme", **REQUEST), lambda: meter.publish_event(PAYMENT), meter.flush):
        with pytest.raises(ConfigurationError, match="TAXIMETER_BROKER_URL"):
            call()
    assert meter.stats().spooled_events == 0
    meter.close()


def test_from_env_reads_three_variables(broker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TAXIMETER_BROKER_URL", "TAXIMETER_REDIS_URL"):
        monkeypatch.setenv(name, "")
    with Meter.from_env() as idle, pytest.raises(ConfigurationError, match="TAXIMETER_REDIS_URL"):
        idle.enabled("acme")
    monkeypatch.setenv("TAXIMETER_BROKER_URL", broker.url)
    monkeypatch.setenv("TAXIMETER_SPOOL", str(tmp_path / "elsewhere"))
    with Meter.from_env(source="/from/env") as meter:
        meter.record("acme", **REQUEST)
        assert list((tmp_path / "elsewhere").iterdir())
    assert broker.events()[0]["source"] == "/from/env"


def test_unusable_settings_are_named() -> None:
    with pytest.raises(ConfigurationError, match="amqp://"):
        Meter(broker_url="http://localhost")
    with pytest.raises(ConfigurationError, match="TAXIMETER_REDIS_URL"):
        Meter(redis_url="amqp://localhost")
    with pytest.raises(ConfigurationError, match="TAXIMETER_BROKER_URL"):
        Meter(broker_url="redis://localhost:notaport")
    with pytest.raises(ConfigurationError, match="on_unknown"):
        Meter(on_unknown="maybe")  # type: ignore[arg-type]


def test_a_meter_that_could_not_be_made_leaves_nothing_running(broker: Any, tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(ConfigurationError):
        Meter(broker_url=broker.url, redis_url="ftp://localhost", spool=tmp_path)
    eventually(lambda: threading.active_count() == before)


def test_a_closed_meter_refuses(broker: Any, make_meter: Callable[..., Meter]) -> None:
    meter = make_meter(broker_url=broker.url)
    meter.close()
    meter.close()
    with pytest.raises(ClosedError):
        meter.record("acme", **REQUEST)
    with pytest.raises(ClosedError):
        meter.flush()


def test_a_full_valkey_refuses_and_events_wait(
    own_valkey: Callable[..., Any], broker_at: Callable[[str], Any], make_meter: Callable[..., Meter]
) -> None:
    server = own_valkey({"maxmemory-policy": "noeviction"})
    broker = broker_at(server.url(1))
    meter = make_meter(broker_url=broker.url)
    with server.client() as client:
        client.config_set("maxmemory", "1")
        event_id = meter.record("acme", **REQUEST)
        with pytest.raises(FlushTimeoutError, match="maxmemory"):
            meter.flush(1)
        client.config_set("maxmemory", "0")
    meter.flush(20)
    assert [event["id"] for event in broker.events()] == [event_id]


def test_asyncio_code_records_and_flushes(broker: Any, redis_url: str, make_meter: Callable[..., Meter]) -> None:
    meter = make_meter(broker_url=broker.url, redis_url=redis_url, on_unknown="open")

    async def tool(number: int) -> str:
        assert meter.enabled(f"w{number}")
        await asyncio.sleep(0)
        return meter.record(f"w{number}", **REQUEST)

    async def run() -> list[str]:
        ids = await asyncio.gather(*(tool(number) for number in range(50)))
        await asyncio.to_thread(meter.flush, 20)
        return ids

    ids = asyncio.run(run())
    assert sorted(event["id"] for event in broker.events()) == sorted(ids)
