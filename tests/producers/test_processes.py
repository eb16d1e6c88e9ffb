"""Kills, forks, threads and exits."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taximeter import Meter
from waiting import eventually

REQUEST = {"tool": "chat", "quantities": {"requests": 1}}

TOOL = """
import os
from taximeter import Meter
meter = Meter.from_env()
while True:
    event_id = meter.record("acme", tool="chat", quantities={"requests": 1}, input="x" * 300)
    os.write(1, event_id.encode() + b"\\n")
"""


def in_child(run: Callable[[], None]) -> int:
    """Run in a forked child and return its exit status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            run()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_and_kill(environment: dict[str, str], chance: random.Random) -> list[str]:
    """Start a tool, kill it at some moment, and return the ids that `record` had returned."""
    with subprocess.Popen([sys.executable, "-c", TOOL], stdout=subprocess.PIPE, env=environment) as tool:
        assert tool.stdout is not None
        accepted = [tool.stdout.readline()]
        killer = threading.Timer(chance.uniform(0.0, 0.3), tool.kill)
        killer.start()
        accepted += tool.stdout.readlines()
        killer.join()
    assert tool.returncode == -signal.SIGKILL
    return [line.decode().strip() for line in accepted if line.endswith(b"\n")]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_kill_9_loses_nothing_that_record_accepted(
    broker: Any, tmp_path: Path, environment: dict[str, str], make_meter: Callable[..., Meter], seed: int
) -> None:
    settings = {"TAXIMETER_SPOOL": str(tmp_path / "spool")}
    chance = random.Random(seed)
    accepted = []
    # Killed while it publishes, then killed while there is no broker; each adopts what the one before left.
    for url in (broker.url, "amqp://guest:guest@127.0.0.1:1/"):
        settings["TAXIMETER_BROKER_URL"] = url
        accepted += run_and_kill({**environment, **settings}, chance)
    make_meter(broker_url=broker.url).flush(30)
    arrived = {event["id"] for event in broker.events()}
    assert set(accepted) <= arrived, f"seed {seed}: lost {len(set(accepted) - arrived)} of {len(accepted)}"
    # At most one record in flight at each kill had not returned.
    assert len(arrived) <= len(accepted) + 2


def test_a_living_meter_takes_over_from_a_dead_process(
    broker: Any, tmp_path: Path, environment: dict[str, str], make_meter: Callable[..., Meter]
) -> None:
    meter = make_meter(broker_url=broker.url)
    meter.flush(20)
    settings = {"TAXIMETER_BROKER_URL": "amqp://guest:guest@127.0.0.1:1/", "TAXIMETER_SPOOL": str(tmp_path / "spool")}
    accepted = run_and_kill({**environment, **settings}, random.Random(7))
    eventually(lambda: meter.stats().confirmed >= len(accepted))
    assert set(accepted) <= {event["id"] for event in broker.events()}
    assert meter.stats().recorded == 0


def test_processes_share_a_directory(
    broker: Any, tmp_path: Path, environment: dict[str, str], make_meter: Callable[..., Meter]
) -> None:
    script = TOOL.replace("while True", "for _ in range(300)")
    settings = {"TAXIMETER_BROKER_URL": broker.url, "TAXIMETER_SPOOL": str(tmp_path / "spool")}
    tools = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env={**environment, **settings})
        for _ in range(3)
    ]
    printed = [tool.communicate(timeout=60)[0].decode().split() for tool in tools]
    assert [tool.returncode for tool in tools] == [0, 0, 0]
    arrived = [event["id"] for event in broker.events()]
    assert sorted(arrived) == sorted(i for ids in printed for i in ids), "all flushed at exit, none twice"
    for ids in printed:
        assert [i for i in arrived if i in set(ids)] == ids
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_forked_child_records_by_itself(broker: Any, make_meter: Callable[..., Meter]) -> None:
    meter = make_meter(broker_url=broker.url)
    before = meter.record("acme", **REQUEST, id="before")
    meter.flush(20)

    def child() -> None:
        assert meter.stats().recorded == 0
        for number in range(10):
            meter.record("acme", **REQUEST, id=f"child-{number}")
        meter.flush(20)
        meter.close()

    assert in_child(child) == 0
    # The parent's connection and segment are untouched.
    after = meter.record("acme", **REQUEST, id="after")
    meter.flush(20)
    assert meter.stats().failures == 0
    arrived = [event["id"] for event in broker.events()]
    assert sorted(arrived) == sorted([before, after, *(f"child-{number}" for number in range(10))])


def test_a_child_that_neither_flushes_nor_closes_loses_nothing(broker: Any, make_meter: Callable[..., Meter]) -> None:
    meter = make_meter(broker_url=broker.url)
    meter.record("acme", **REQUEST, id="parent")
    assert in_child(lambda: [meter.record("acme", **REQUEST, id=f"child-{n}") for n in range(10)] and None) == 0
    meter.close()
    make_meter(broker_url=broker.url).flush(20)
    arrived = {event["id"] for event in broker.events()}
    assert arrived == {"parent", *(f"child-{n}" for n in range(10))}


def test_a_fork_amid_recording_threads(broker: Any, make_meter: Callable[..., Meter]) -> None:
    meter = make_meter(broker_url=broker.url)
    stop = threading.Event()
    counts = [0, 0]

    def run(mine: int) -> None:
        while not stop.is_set():
            meter.record("acme", **REQUEST, id=f"thread-{mine}-{counts[mine]}")
            counts[mine] += 1

    threads = [threading.Thread(target=run, args=(mine,)) for mine in range(2)]
    for thread in threads:
        thread.start()

    def child(number: int) -> None:
        meter.record("acme", **REQUEST, id=f"child-{number}")
        meter.flush(20)

    try:
        statuses = [in_child(lambda number=number: child(number)) for number in range(8)]  # type: ignore[misc]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert statuses == [0] * 8
    meter.flush(30)
    arrived = [event["id"] for event in broker.events()]
    expected = {f"thread-{mine}-{n}" for mine in range(2) for n in range(counts[mine])}
    assert set(arrived) == expected | {f"child-{n}" for n in range(8)}
    for mine in range(2):
        own = [i for i in arrived if i.startswith(f"thread-{mine}-")]
        assert own == [f"thread-{mine}-{n}" for n in range(counts[mine])]


def test_threads_record_and_flush_at_once(broker: Any, make_meter: Callable[..., Meter]) -> None:
    meter = make_meter(broker_url=broker.url)
    ids: list[list[str]] = [[] for _ in range(4)]

    def run(mine: list[str]) -> None:
        for number in range(500):
            mine.append(meter.record("acme", **REQUEST))
            if number % 100 == 0:
                meter.flush(20)

    threads = [threading.Thread(target=run, args=(mine,)) for mine in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    meter.flush(20)
    arrived = [event["id"] for event in broker.events()]
    assert len(arrived) == 2000
    for mine in ids:
        assert [i for i in arrived if i in set(mine)] == mine


def test_a_signal_handler_may_record(broker: Any, make_meter: Callable[..., Meter]) -> None:
    meter = make_meter(broker_url=broker.url)
    handled = []
    over = False

    def handle(*_: Any) -> None:
        handled.append(meter.record("acme", **REQUEST))
        if (
            not over
        ):  # each run sets the next timer: on a slow disk a steady one would interrupt the handler, again and again
            signal.setitimer(signal.ITIMER_REAL, 0.001)

    previous = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        recorded = [meter.record("acme", **REQUEST, input="x" * 200) for _ in range(3000)]
    finally:
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    meter.flush(30)
    assert handled
    assert {event["id"] for event in broker.events()} == {*handled, *recorded}
