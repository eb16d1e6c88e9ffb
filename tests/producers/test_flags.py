from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from proxy import Proxy
from taximeter import ClosedError, ConfigurationError, InvalidEventError, Meter, names
from taximeter.flags import cache, tracking
from waiting import eventually

SINCE = "2026-11-22T10:00:00.123456Z"


class Flags:
    """Writes flags as the worker does."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def set(self, workspace_id: str, enabled: bool, status: str | None = None) -> None:
        self.client.hset(
            names.flag_key(workspace_id),
            mapping={
                "enabled": int(enabled),
                "status": status or ("sufficient" if enabled else "insufficient"),
                "epoch": 1,
                "version": 1,
                "since": SINCE,
            },
        )

    def ready(self) -> None:
        self.client.set(names.FLAGS_READY, "1")


@pytest.fixture
def flag(redis_client: Any) -> Flags:
    return Flags(redis_client)


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    port = int(redis_url.rpartition(":")[2].partition("/")[0])
    with Proxy("127.0.0.1", port) as running:
        yield running


def hear_everything(meter: Meter, flag: Flags) -> None:
    """Wait until all that Redis has sent this meter has been heard: what comes over its connection keeps its order."""
    for enabled in (True, False):
        flag.set("the-last", enabled=enabled)
        eventually(lambda expected=enabled: meter.enabled("the-last") is expected)  # type: ignore[misc]


def test_a_flag_is_read_and_its_flips_are_seen(redis_url: str, flag: Flags, make_meter: Callable[..., Meter]) -> None:
    flag.set("acme", enabled=False)
    flag.set("other", enabled=True, status="low")
    meter = make_meter(redis_url=redis_url, timeout_seconds=5)
    assert meter.enabled("acme") is False
    assert meter.enabled("other") is True
    status = meter.status("acme")
    assert (status.workspace_id, status.status, status.enabled) == ("acme", "insufficient", False)
    assert status.since == datetime(2026, 11, 22, 10, 0, 0, 123456, tzinfo=UTC)
    assert status.stale_seconds is not None
    assert meter.status("other").status == "low"
    for enabled in (True, False, True):
        flag.set("acme", enabled=enabled)
        eventually(lambda expected=enabled: meter.enabled("acme") is expected)  # type: ignore[misc]
    assert meter.status("acme").status == "sufficient"


def test_a_change_is_fetched_before_anyone_asks(
    redis_url: str, redis_client: Any, flag: Flags, make_meter: Callable[..., Meter]
) -> None:
    flag.set("acme", enabled=True)
    meter = make_meter(redis_url=redis_url, timeout_seconds=5)
    assert meter.enabled("acme")
    flag.set("acme", enabled=False)
    eventually(lambda: meter._answers.get("acme") is False)
    flag.set("stranger", enabled=False)
    redis_client.hset("taximeter:balance:{acme}", mapping={"balance": "1"})
    assert list(meter._answers) == ["acme"], "only what was asked for is kept"


def test_a_missing_flag_is_a_new_workspace_once_the_cache_is_warm(
    redis_url: str, redis_client: Any, flag: Flags, make_meter: Callable[..., Meter]
) -> None:
    closed = make_meter(redis_url=redis_url, timeout_seconds=5)
    opened = make_meter(redis_url=redis_url, timeout_seconds=5, on_unknown="open")
    assert (closed.enabled("acme"), opened.enabled("acme")) == (False, True), "cold: the policy decides"
    assert closed.status("acme") == ("acme", None, False, None, None)
    flag.ready()
    eventually(lambda: closed.enabled("acme"))
    status = closed.status("acme")
    assert (status.status, status.enabled, status.since) == ("sufficient", True, None)
    flag.set("acme", enabled=False)
    eventually(lambda: not closed.enabled("acme") and not opened.enabled("acme"))
    redis_client.delete(names.FLAGS_READY)
    assert not closed.enabled("acme")
    assert not opened.enabled("acme"), "a flag that is there needs no warm cache"


def test_a_lost_flag_is_a_new_workspace_only_while_warm(
    redis_url: str, redis_client: Any, flag: Flags, make_meter: Callable[..., Meter]
) -> None:
    flag.ready()
    flag.set("acme", enabled=False)
    meter = make_meter(redis_url=redis_url, timeout_seconds=5)
    assert not meter.enabled("acme")
    redis_client.delete(names.flag_key("acme"))
    eventually(lambda: meter.enabled("acme"))
    redis_client.delete(names.FLAGS_READY)
    eventually(lambda: meter.status("acme").stale_seconds is not None and "acme" not in meter._answers)
    assert meter.enabled("acme"), "within the grace time the last known answer stands"


def test_flushall_clears_everything_and_the_last_answers_stand_in(
    redis_url: str, redis_client: Any, flag: Flags, make_meter: Callable[..., Meter]
) -> None:
    flag.ready()
    flag.set("poor", enabled=False)
    flag.set("rich", enabled=True)
    patient = make_meter(redis_url=redis_url, timeout_seconds=5)
    impatient = make_meter(redis_url=redis_url, timeout_seconds=5, grace_seconds=0)
    for meter in (patient, impatient):
        assert (meter.enabled("poor"), meter.enabled("rich"), meter.enabled("new")) == (False, True, True)
    redis_client.flushall()
    eventually(lambda: not patient._answers and not impatient._answers)
    assert (patient.enabled("poor"), patient.enabled("rich"), patient.enabled("new")) == (False, True, True)
    assert (impatient.enabled("poor"), impatient.enabled("rich"), impatient.enabled("new")) == (False, False, False)
    flag.set("rich", enabled=False)
    flag.set("poor", enabled=True)
    flag.ready()
    for meter in (patient, impatient):
        eventually(lambda m=meter: (m.enabled("poor"), m.enabled("rich"), m.enabled("new")) == (True, False, True))  # type: ignore[misc]


def test_a_hung_redis_is_answered_by_policy_and_noticed(
    own_valkey: Callable[..., Any], make_meter: Callable[..., Meter]
) -> None:
    server = own_valkey()
    with server.client() as client:
        Flags(client).set("acme", enabled=True)
    meter = make_meter(redis_url=server.url(0))
    grudging = make_meter(redis_url=server.url(0), grace_seconds=0)
    generous = make_meter(redis_url=server.url(0), on_unknown="open")
    for each in (meter, grudging, generous):
        eventually(lambda m=each: m.enabled("acme"))  # type: ignore[misc]
    os.kill(server.pid, signal.SIGSTOP)
    try:
        assert meter.enabled("unseen") is False
        assert generous.enabled("unseen") is True
        eventually(lambda: not meter._answers and not grudging._answers)
        assert meter.enabled("acme") is True, "the last known answer"
        stale = meter.status("acme").stale_seconds
        assert stale is not None
        assert stale > 0.5
        assert grudging.enabled("acme") is False, "no grace: the policy"
    finally:
        os.kill(server.pid, signal.SIGCONT)
    eventually(lambda: grudging.enabled("acme") and not meter.enabled("unseen"))
    with server.client() as client:
        Flags(client).set("acme", enabled=False)
    eventually(lambda: meter.enabled("acme") is False)


def test_a_hung_redis_costs_one_timeout_and_not_one_a_call(
    own_valkey: Callable[..., Any], make_meter: Callable[..., Meter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is not given up here, so that nothing but the meter's own timeout ends a wait."""
    monkeypatch.setattr(tracking, "DEAD_AFTER_SECONDS", 3600.0)
    server = own_valkey()
    with server.client() as client:
        Flags(client).set("acme", enabled=True)
        meter = make_meter(redis_url=server.url(0))
        eventually(lambda: meter.enabled("acme"))
        client.config_resetstat()
        os.kill(server.pid, signal.SIGSTOP)
        try:
            assert not any(meter.enabled(f"unseen-{number}") for number in range(200))
        finally:
            os.kill(server.pid, signal.SIGCONT)
        # What was asked meanwhile is answered now; who did not ask did not wait either.
        eventually(lambda: not meter._flags._fetches)  # type: ignore[union-attr]
        asked = client.info("commandstats")["cmdstat_hgetall"]["calls"]
    assert 1 <= asked < 50


def test_a_killed_redis_is_found_again(own_valkey: Callable[..., Any], make_meter: Callable[..., Meter]) -> None:
    server = own_valkey()
    with server.client() as client:
        Flags(client).set("acme", enabled=True)
    meter = make_meter(redis_url=server.url(0))
    eventually(lambda: meter.enabled("acme"))
    server.kill()
    eventually(lambda: not meter._answers)
    assert meter.enabled("acme") is True
    assert meter.enabled("unseen") is False
    server.start()
    with server.client() as client:
        Flags(client).set("acme", enabled=False)
    eventually(lambda: meter.enabled("acme") is False)


def test_no_redis_at_all_is_answered_by_policy(make_meter: Callable[..., Meter]) -> None:
    meter = make_meter(redis_url="redis://127.0.0.1:1/0")
    opened = make_meter(redis_url="redis://127.0.0.1:1/0", on_unknown="open")
    assert not any(meter.enabled("acme") for _ in range(50))
    assert all(opened.enabled("acme") for _ in range(50))


def test_the_cache_is_true_after_any_sequence_of_flips_and_cuts(
    redis_url: str, flag: Flags, proxy: Proxy, make_meter: Callable[..., Meter]
) -> None:
    chance = random.Random(11)
    meter = make_meter(redis_url=proxy.url(redis_url), timeout_seconds=0.5)
    proxy.slice(5)
    workspaces = [f"w{number}" for number in range(5)]
    truth = dict.fromkeys(workspaces, False)
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            meter.enabled(chance.choice(workspaces))

    readers = [threading.Thread(target=ask) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for step in range(600):
            workspace_id = chance.choice(workspaces)
            truth[workspace_id] = not truth[workspace_id]
            flag.set(workspace_id, enabled=truth[workspace_id])
            if step % 200 == 100:
                proxy.cut()
            if step % 50 == 49:
                # Once the writers rest, no answer of an overtaken fetch may stay.
                for each in truth:
                    eventually(lambda w=each: w in meter._answers or meter.enabled(w) is truth[w])  # type: ignore[misc]
                    eventually(lambda w=each: meter.enabled(w) is truth[w])  # type: ignore[misc]
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    hear_everything(meter, flag)
    assert {w: meter.enabled(w) for w in workspaces} == truth


def test_a_change_during_a_fetch_wins(
    redis_url: str, flag: Flags, proxy: Proxy, make_meter: Callable[..., Meter]
) -> None:
    flag.set("other", enabled=True)
    flag.set("acme", enabled=True)
    meter = make_meter(redis_url=proxy.url(redis_url), timeout_seconds=0.3)
    eventually(lambda: meter.enabled("other"))

    def fetches() -> int:
        return int(flag.client.info("commandstats")["cmdstat_hgetall"]["calls"])

    before = fetches()
    # Redis answers the fetch, but the answer is held back, and the flag changes before it arrives.
    proxy.stall(replies_only=True)
    asking = threading.Thread(target=meter.enabled, args=("acme",))
    asking.start()
    eventually(lambda: fetches() > before)
    flag.set("acme", enabled=False)
    proxy.resume()
    asking.join()
    eventually(lambda: meter._answers.get("acme") is False)
    hear_everything(meter, flag)
    assert meter.enabled("acme") is False


def test_the_number_of_kept_answers_is_bounded(
    redis_url: str, flag: Flags, make_meter: Callable[..., Meter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "ENTRIES_MAX", 10)
    flag.ready()
    meter = make_meter(redis_url=redis_url, timeout_seconds=5)
    for number in range(50):
        assert meter.enabled(f"w{number}")
    assert len(meter._answers) == 10
    assert meter.enabled("w0")


def test_many_threads_share_one_fetch(redis_url: str, flag: Flags, make_meter: Callable[..., Meter]) -> None:
    flag.set("acme", enabled=True)
    meter = make_meter(redis_url=redis_url, timeout_seconds=5)
    answers: list[bool] = []
    threads = [threading.Thread(target=lambda: answers.append(meter.enabled("acme"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 8


def test_a_forked_child_hears_of_flips_by_itself(redis_url: str, flag: Flags, make_meter: Callable[..., Meter]) -> None:
    flag.set("acme", enabled=True)
    meter = make_meter(redis_url=redis_url, timeout_seconds=5)
    assert meter.enabled("acme")
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            assert meter.enabled("acme")
            os.write(told, b"!")
            eventually(lambda: not meter.enabled("acme"))
            status = 0
        finally:
            os._exit(status)
    os.close(told)
    assert os.read(ready, 1) == b"!"
    flag.set("acme", enabled=False)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    eventually(lambda: not meter.enabled("acme"))
    flag.set("acme", enabled=True)
    eventually(lambda: meter._answers.get("acme") is True)
    os.close(ready)


@pytest.mark.parametrize("policy", ["open", "closed"])
def test_a_malformed_flag_is_answered_by_policy_and_hurts_no_neighbour(
    redis_url: str, redis_client: Any, flag: Flags, make_meter: Callable[..., Meter], policy: str
) -> None:
    flag.ready()
    redis_client.hset(names.flag_key("odd"), mapping={"enabled": "perhaps"})
    redis_client.hset(names.flag_key("bare"), mapping={"enabled": "0", "since": "yesterday"})
    redis_client.set(names.flag_key("text"), "0")
    meter = make_meter(redis_url=redis_url, timeout_seconds=5, on_unknown=policy)
    for workspace_id in ("odd", "text"):
        assert meter.enabled(workspace_id) is (policy == "open")
        assert meter.status(workspace_id).status is None
    assert meter.status("bare")[1:4] == (None, False, None)
    # on the connection that the unreadable one was read on
    assert meter.enabled("new") is True
    redis_client.delete(names.flag_key("text"))
    eventually(lambda: meter.enabled("text"))


def test_a_flag_that_is_damaged_is_remembered_for_a_while(
    redis_url: str, redis_client: Any, flag: Flags, make_meter: Callable[..., Meter]
) -> None:
    flag.ready()
    flag.set("acme", enabled=False)
    meter = make_meter(redis_url=redis_url, timeout_seconds=5, on_unknown="open")
    assert meter.enabled("acme") is False
    redis_client.set(names.flag_key("acme"), "1")
    hear_everything(meter, flag)
    assert meter.enabled("acme") is False


def test_an_account_that_may_only_read_flags_is_enough(
    own_valkey: Callable[..., Any], make_meter: Callable[..., Meter]
) -> None:
    server = own_valkey()
    with server.client() as client:
        client.acl_setuser(
            "tool",
            enabled=True,
            passwords=["+secret"],
            keys=["taximeter:flag*"],
            categories=["-@all"],
            commands=["+client", "+exists", "+hgetall", "+multi", "+exec", "+ping", "+hello", "+select"],
        )
        Flags(client).set("acme", enabled=True)
        client.set(names.FLAGS_READY, "1")
    address = server.url(0).rpartition("@")[2].removeprefix("redis://")
    meter = make_meter(redis_url=f"redis://tool:secret@{address}", timeout_seconds=5)
    eventually(lambda: meter.enabled("acme"))
    assert meter.enabled("new") is True
    wrong = make_meter(redis_url=f"redis://tool:wrong@{address}")
    assert wrong.enabled("acme") is False


def test_a_meter_without_redis_says_so(make_meter: Callable[..., Meter]) -> None:
    meter = make_meter()
    with pytest.raises(ConfigurationError, match="TAXIMETER_REDIS_URL"):
        meter.enabled("acme")
    with pytest.raises(ConfigurationError, match="TAXIMETER_REDIS_URL"):
        meter.status("acme")


def test_a_malformed_workspace_is_refused(redis_url: str, make_meter: Callable[..., Meter]) -> None:
    meter = make_meter(redis_url=redis_url)
    for bad in ("", "a b", None, 3, ["acme"]):
        with pytest.raises(InvalidEventError):
            meter.enabled(bad)  # type: ignore[arg-type]


def test_a_closed_meter_answers_nothing(redis_url: str, flag: Flags, make_meter: Callable[..., Meter]) -> None:
    flag.set("acme", enabled=True)
    meter = make_meter(redis_url=redis_url, timeout_seconds=5)
    assert meter.enabled("acme")
    meter.close()
    with pytest.raises(ClosedError):
        meter.enabled("acme")
    with redis.Redis.from_url(redis_url) as client:
        eventually(lambda: all(b"taximeter" not in str(c).encode() for c in client.client_list()))
