"""What the host process does: many open files, signal handlers, meters that nobody closes, users without a home."""

from __future__ import annotations

import gc
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy import Proxy
from servers import require
from taximeter import ConfigurationError, Meter, names
from taximeter.spool.wakeup import Wakeup
from waiting import eventually

REQUEST: dict[str, Any] = {"tool": "chat", "quantities": {"requests": 1}}
NOBODY_LISTENS = "amqp://guest:guest@127.0.0.1:1/"
FILES = 1100
"""More than select() can watch."""


@pytest.fixture
def many_files() -> Any:
    """This process holds more descriptors than select() knows."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    require("Many descriptors", before[1] >= 4096, "the hard limit of open files is too low")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, before[1]))
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(FILES)]
    yield
    for descriptor in held:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_host_with_many_open_files_records_and_checks(
    many_files: None, broker: Any, redis_url: str, redis_client: Any, make_meter: Callable[..., Meter]
) -> None:
    redis_client.hset(names.flag_key("acme"), mapping={"enabled": "1", "status": "low"})
    with Proxy("127.0.0.1", int(redis_url.rpartition(":")[2].partition("/")[0])) as proxy:
        meter = make_meter(broker_url=broker.url, redis_url=proxy.url(redis_url), timeout_seconds=5)
        assert meter.enabled("acme")
        event_id = meter.record("acme", **REQUEST)
        meter.flush(20)
        proxy.cut()
        redis_client.hset(names.flag_key("acme"), mapping={"enabled": "0", "status": "insufficient"})
        eventually(lambda: not meter.enabled("acme"))
    assert [event["id"] for event in broker.events()] == [event_id]


def test_a_connection_alone_resets_no_back_off(
    own_valkey: Callable[..., Any], make_meter: Callable[..., Meter]
) -> None:
    """This user may connect, but ask for no flag: every connection is good, and every question ends it."""
    server = own_valkey()
    with server.client() as client:
        client.acl_setuser(
            "tool",
            enabled=True,
            passwords=["+secret"],
            keys=["*"],
            categories=["-@all"],
            commands=["+client", "+ping", "+hello", "+select"],
        )
    address = server.url(0).rpartition("@")[2]
    meter = make_meter(redis_url=f"redis://tool:secret@{address}", timeout_seconds=0.01)
    assert meter._flags is not None
    back_off = meter._flags._tracking.back_off

    def asked_in_vain() -> bool:
        assert not meter.enabled("acme")
        return back_off.failures >= 6

    eventually(asked_in_vain, 30)
    with server.client() as client:
        assert client.info("stats")["total_connections_received"] < 20, "the delays have grown"


AT_EVERY_LINE = """
import signal, sys, threading
from taximeter import Meter

meter = Meter.from_env(linger_seconds=0.0)
ids = []
def handle(*_):
    ids.append(meter.record("acme", tool="chat", quantities={"requests": 1}))
signal.signal(signal.SIGUSR1, handle)

def record_interrupted_at(line):
    # A signal arrives at the n-th line that record() runs, wherever that is, the standard library included.
    left = line
    def trace(frame, event, argument):
        nonlocal left
        if event == "line":
            left -= 1
            if left == 0:
                sys.settrace(None)
                signal.raise_signal(signal.SIGUSR1)
        return trace
    sys.settrace(trace)
    try:
        ids.append(meter.record("acme", tool="chat", quantities={"requests": 1}))
    finally:
        sys.settrace(None)
    return left <= 0

line = 1
while record_interrupted_at(line):
    meter.flush(20)  # the publisher is idle again, so that the next record() wakes it
    line += 1
meter.close()
print(len(ids), line)
"""


def test_a_signal_at_any_line_of_record_is_safe(broker: Any, tmp_path: Path, environment: dict[str, str]) -> None:
    settings = {"TAXIMETER_BROKER_URL": broker.url, "TAXIMETER_SPOOL": str(tmp_path / "spool")}
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", AT_EVERY_LINE],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**environment, **settings},
    )
    assert done.returncode == 0, done.stderr
    recorded, lines = map(int, done.stdout.split())
    assert lines > 20, "record() was interrupted at every one of its lines"
    assert len({event["id"] for event in broker.events()}) == recorded == 2 * lines - 1


def test_what_the_publisher_waits_for_is_set_within_itself() -> None:
    """The handler interrupts the very setting of what it sets itself."""
    wakeup = Wakeup()
    handled = []

    def handle(*_: Any) -> None:
        wakeup.set()
        handled.append(True)

    previous = signal.signal(signal.SIGUSR1, handle)
    main = threading.get_ident()
    stop = threading.Event()

    def shoot() -> None:
        while not stop.is_set():
            signal.pthread_kill(main, signal.SIGUSR1)

    shooter = threading.Thread(target=shoot)
    shooter.start()
    try:
        for _ in range(20_000):
            wakeup.set()
            assert wakeup.wait(1)
            wakeup.clear()
    finally:
        stop.set()
        shooter.join()
        signal.signal(signal.SIGUSR1, previous)
    assert handled


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_dropped_meter_warns_and_lets_go(broker: Any, redis_url: str, tmp_path: Path) -> None:
    gc.collect()
    threads, files = threading.active_count(), descriptors()
    ids = set()
    for _ in range(20):
        meter = Meter(broker_url=broker.url, redis_url=redis_url, spool=tmp_path / "spool", timeout_seconds=5)
        assert not meter.enabled("acme")
        ids.add(meter.record("acme", **REQUEST))
        with pytest.warns(ResourceWarning, match="without close"):
            del meter
    eventually(lambda: threading.active_count() <= threads)
    eventually(lambda: descriptors() <= files)
    with Meter(broker_url=broker.url, spool=tmp_path / "spool") as last:
        last.flush(20)
    assert {event["id"] for event in broker.events()} == ids, "what waited stayed in the spool"


def test_a_meter_with_nothing_open_is_dropped_silently() -> None:
    meter = Meter()
    del meter
    gc.collect()


def test_a_user_without_a_home_is_told_what_to_set(environment: dict[str, str]) -> None:
    require("Another user", os.geteuid() == 0, "only root can become a user without an entry in the user database")
    script = (
        "import os; os.setuid(54321)\n"
        "from taximeter import ConfigurationError, Meter\n"
        f"try:\n    Meter(broker_url={NOBODY_LISTENS!r})\n"
        "except ConfigurationError as error:\n    print(error)\n"
    )
    homeless = {name: value for name, value in environment.items() if name not in {"HOME", "XDG_STATE_HOME"}}
    # The interpreter's own folder may be closed to that user: everything is imported before it changes.
    script = "import taximeter.brokers.rabbitmq, taximeter.meter\n" + script
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=homeless)
    assert "TAXIMETER_SPOOL" in done.stdout, done.stderr


@pytest.mark.parametrize("argument", ["broker_url", "redis_url"])
@pytest.mark.parametrize(
    "address",
    [
        "{scheme}://u:hunter2#rest@h/0",
        "{scheme}://u:1234#rest@h/0",
        "{scheme}://u:hunter2/rest@h/0",
        "{scheme}://u:1234/rest@h/0",
        "{scheme}://u:hunter2?rest@h/0",
        "{scheme}://u:1234?rest@h/0",
        "{scheme}://u:hunt@er2@h/0",
        "{scheme}://h:hunter2/0",
        "{scheme}://h:99999/0",
        "{scheme}://[hunter2/0",
        "{scheme}://",
        "hunter2",
        "hunter2://h",
        "u:hunter2@h",
    ],
)
def test_an_address_that_cannot_be_understood_is_named_and_not_shown(
    tmp_path: Path, argument: str, address: str
) -> None:
    variable = {"broker_url": "TAXIMETER_BROKER_URL", "redis_url": "TAXIMETER_REDIS_URL"}[argument]
    for scheme in ("redis", "rediss", *(("amqp", "amqps") if argument == "broker_url" else ())):
        with pytest.raises(ConfigurationError, match=rf"^{variable} .*percent-encode") as caught:
            Meter(**{argument: address.format(scheme=scheme), "spool": tmp_path})
        shown = f"{caught.value}{caught.value.__cause__ or ''}"
        assert not any(piece in shown for piece in ("hunt", "er2", "rest", "1234", "99999"))
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_semicolon_in_a_password_is_taken_for_another_node(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="percent-encode") as caught:
        Meter(broker_url="amqp://u:hunter2;rest@h/", spool=tmp_path)
    assert "hunter2" not in str(caught.value)


def test_a_parameter_that_redis_py_refuses_is_not_shown(tmp_path: Path) -> None:
    for argument in ("broker_url", "redis_url"):
        with pytest.raises(ConfigurationError, match="cannot be understood") as caught:
            Meter(**{argument: "redis://h/0?socket_timeout=hunter2", "spool": tmp_path})  # type: ignore[arg-type]
        assert "hunter2" not in str(caught.value)
