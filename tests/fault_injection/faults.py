"""Faults by name. Each strikes, lasts a little, and heals; it returns False if it did not come about.

``PROCESSES`` strike processes of ours and ``CONNECTIONS`` what lies between, each from a thread; ``SERVERS`` strike servers, from
the main thread, because a server ends with the thread that started it. One of each may be under way at the same time.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import psutil
import psycopg

from fault_injection import environment_faults
from fault_injection.system_under_test import SystemUnderTest, freeze
from servers.rabbitmq import RabbitMQ
from taximeter_worker import failpoints
from waiting import eventually
from workers import WorkerProcess

Fault = Callable[[SystemUnderTest, random.Random], bool | None]

REPLY_SECONDS_MAX = 15.0
FAILPOINT_SECONDS_MAX = 20.0


# -- processes of ours ----------------------------------------------------------------------------------------------


def _back(worker: WorkerProcess) -> None:
    worker.start()


def worker_killed(system: SystemUnderTest, dice: random.Random) -> None:
    worker = dice.choice(system.workers)
    worker.kill()
    _back(worker)


def worker_killed_at_a_failpoint(system: SystemUnderTest, dice: random.Random) -> bool:
    worker = dice.choice(system.workers)
    point = f"{dice.choice(failpoints.BOOKING_POINTS)}:{dice.randrange(1, 8)}"
    worker.kill()
    worker.start(TAXIMETER_FAILPOINT=point)
    try:
        died = worker.wait(FAILPOINT_SECONDS_MAX) == -signal.SIGKILL
    except subprocess.TimeoutExpired:
        died = False
        worker.kill()
    _back(worker)
    return died


def worker_frozen(system: SystemUnderTest, dice: random.Random) -> None:
    process = dice.choice(system.workers).process
    assert process is not None
    freeze(process.pid, dice.uniform(0.5, 6))


def worker_terminated(system: SystemUnderTest, dice: random.Random) -> None:
    worker = dice.choice(system.workers)
    # Celery's handlers must stand; before that a SIGTERM ends it as it ends any process.
    if worker.connected:
        code = worker.stop(90)
        assert code == 0, worker.text()[-3000:]
    worker.kill()
    _back(worker)


def producer_killed(system: SystemUnderTest, dice: random.Random) -> None:
    number = dice.choice(list(system.producers))
    process = system.producers[number]
    process.kill()
    process.wait()
    system.start_producer(number)


def producer_frozen(system: SystemUnderTest, dice: random.Random) -> None:
    freeze(system.producers[dice.choice(list(system.producers))].pid, dice.uniform(0.5, 5))


def spender_killed(system: SystemUnderTest, dice: random.Random) -> None:
    """A tool dies with holds that are open, and with usages that are half recorded."""
    system.spenders.kill()
    system.spenders.start()


def spender_frozen(system: SystemUnderTest, dice: random.Random) -> None:
    freeze(system.spenders.pid, dice.uniform(0.5, 5))


# -- connections ----------------------------------------------------------------------------------------------------


def connections_cut(system: SystemUnderTest, dice: random.Random) -> None:
    proxy = dice.choice(list(system.proxies.values()))
    for _ in range(dice.randrange(1, 4)):
        proxy.cut()
        time.sleep(dice.uniform(0, 0.3))


def connections_refused(system: SystemUnderTest, dice: random.Random) -> None:
    proxy = dice.choice(list(system.proxies.values()))
    proxy.refuse()
    time.sleep(dice.uniform(0.5, 4))
    proxy.refuse(False)


def connections_stalled(system: SystemUnderTest, dice: random.Random) -> None:
    proxy = dice.choice(list(system.proxies.values()))
    proxy.stall(replies_only=dice.random() < 0.5)
    time.sleep(dice.uniform(0.5, 6))
    proxy.resume()


def connections_sliced(system: SystemUnderTest, dice: random.Random) -> None:
    proxy = dice.choice(list(system.proxies.values()))
    proxy.slice(dice.randrange(16, 200))
    time.sleep(dice.uniform(0.5, 3))
    proxy.slice(65536)


def _drop(system: SystemUnderTest, way: str, needle: bytes) -> bool:
    proxy = system.proxies[way]
    dropped = proxy.drop_reply(needle)
    happened = dropped.wait(REPLY_SECONDS_MAX)
    proxy.forget_reply()
    return happened


def confirm_dropped(system: SystemUnderTest, dice: random.Random) -> bool:
    # basic.ack is method 60.80 of AMQP; the reply to LPUSH is the length of the list.
    return _drop(system, "producers to broker", b"\x00\x3c\x00\x50" if system.broker_kind == "rabbitmq" else b":")


def delivery_dropped(system: SystemUnderTest, dice: random.Random) -> bool:
    return _drop(system, "workers to broker", b"specversion")


def commit_reply_dropped(system: SystemUnderTest, dice: random.Random) -> bool:
    return _drop(system, "workers to PostgreSQL", b"COMMIT\x00")


def flag_reply_dropped(system: SystemUnderTest, dice: random.Random) -> bool:
    return _drop(system, "workers to flags", b"\r\n:")


def spool_disk_full(system: SystemUnderTest, dice: random.Random) -> None:
    system.spool_disk.fill()
    time.sleep(dice.uniform(0.5, 3))
    system.spool_disk.relieve()


# -- servers --------------------------------------------------------------------------------------------------------


def broker_killed(system: SystemUnderTest, dice: random.Random) -> None:
    system.broker.kill()
    time.sleep(dice.uniform(0, 2))
    system.restart_broker()


def broker_frozen(system: SystemUnderTest, dice: random.Random) -> None:
    freeze(system.broker.pid, dice.uniform(1, 8))


def memory_alarm(system: SystemUnderTest, dice: random.Random) -> None:
    if isinstance(system.broker, RabbitMQ):
        system.broker.ctl("set_vm_memory_high_watermark", "0")
        time.sleep(dice.uniform(1, 4))
        system.broker.ctl("set_vm_memory_high_watermark", "0.4")
        return
    with system.broker.client() as client:
        client.config_set("maxmemory", "1")
        time.sleep(dice.uniform(1, 4))
        client.config_set("maxmemory", "0")


def broker_disk_alarm(system: SystemUnderTest, dice: random.Random) -> bool:
    if not isinstance(system.broker, RabbitMQ):
        return False
    system.broker.ctl("set_disk_free_limit", "9000GB")
    time.sleep(dice.uniform(1, 4))
    system.broker.ctl("set_disk_free_limit", "50MB")
    return True


def postgres_killed(system: SystemUnderTest, dice: random.Random) -> None:
    system.postgres.kill()
    time.sleep(dice.uniform(0, 2))
    system.restart_postgres()


def postgres_stopped_immediate(system: SystemUnderTest, dice: random.Random) -> None:
    system.postgres.stop("immediate")
    time.sleep(dice.uniform(0, 3))
    system.restart_postgres()


def postgres_restarted(system: SystemUnderTest, dice: random.Random) -> None:
    system.postgres.stop("fast")
    system.restart_postgres()


def postgres_frozen(system: SystemUnderTest, dice: random.Random) -> None:
    freeze(system.postgres.pid, dice.uniform(1, 8))


def backend_killed(system: SystemUnderTest, dice: random.Random) -> None:
    """One backend dies by SIGKILL: PostgreSQL throws all others out and recovers."""
    with psycopg.connect(system.postgres.admin_url()) as conn:
        rows = conn.execute("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'taximeter booking%'")
        pids = [row[0] for row in rows.fetchall()]
    if pids:
        victim = dice.choice(pids)
        subprocess.run(["kill", "-9", str(victim)], check=False)
        eventually(lambda: not psutil.pid_exists(victim), what="a backend that is gone")
    system.restart_postgres()


def database_disk_full(system: SystemUnderTest, dice: random.Random) -> None:
    system.database_disk.fill()
    time.sleep(dice.uniform(1, 5))
    system.database_disk.relieve()
    # It ends when not even its log of changes can be written.
    system.restart_postgres()


def flags_frozen(system: SystemUnderTest, dice: random.Random) -> None:
    freeze(system.flags.pid, dice.uniform(1, 6))


PROCESSES: dict[str, tuple[Fault, int]] = {
    "worker kill -9": (worker_killed, 3),
    "worker kill -9 at a failpoint": (worker_killed_at_a_failpoint, 3),
    "worker SIGSTOP": (worker_frozen, 3),
    "worker SIGTERM": (worker_terminated, 1),
    "producer kill -9": (producer_killed, 3),
    "producer SIGSTOP": (producer_frozen, 2),
    "holding tool kill -9": (spender_killed, 3),
    "holding tool SIGSTOP": (spender_frozen, 1),
    "spool disk full": (spool_disk_full, 2),
    "worker of the release before": (environment_faults.worker_of_the_release_before, 2),
    "clock jumped": (environment_faults.clock_jumped, 2),
    "replay killed after its commit": (environment_faults.replay_killed_after_its_commit, 2),
}
CONNECTIONS: dict[str, tuple[Fault, int]] = {
    "connections cut": (connections_cut, 5),
    "connections refused": (connections_refused, 3),
    "connections stalled": (connections_stalled, 4),
    "connections sliced": (connections_sliced, 3),
    "reply dropped: confirm": (confirm_dropped, 3),
    "reply dropped: delivery": (delivery_dropped, 2),
    "reply dropped: COMMIT": (commit_reply_dropped, 4),
    "reply dropped: flags": (flag_reply_dropped, 2),
    "host vanished": (environment_faults.host_vanished, 2),
    "broker lost for long": (environment_faults.broker_lost_for_long, 1),
}
SERVERS: dict[str, tuple[Fault, int]] = {
    "broker kill -9": (broker_killed, 3),
    "broker SIGSTOP": (broker_frozen, 3),
    "broker memory alarm": (memory_alarm, 2),
    "broker disk alarm": (broker_disk_alarm, 1),
    "PostgreSQL kill -9": (postgres_killed, 3),
    "PostgreSQL stop -m immediate": (postgres_stopped_immediate, 2),
    "PostgreSQL restart": (postgres_restarted, 2),
    "PostgreSQL SIGSTOP": (postgres_frozen, 3),
    "PostgreSQL backend kill -9": (backend_killed, 2),
    "PostgreSQL disk full": (database_disk_full, 3),
    "long reader at a partition's birth": (environment_faults.long_reader, 2),
    "flag Redis kill -9": (environment_faults.flags_killed, 2),
    "flag Redis went back in time": (environment_faults.flags_went_back_in_time, 3),
    "flag Redis SIGSTOP": (flags_frozen, 2),
    "flag Redis failed over": (environment_faults.flags_failed_over, 2),
    "flag Redis flushed": (environment_faults.flags_flushed, 2),
}


def deck(kinds: dict[str, tuple[Fault, int]], dice: random.Random) -> Iterator[tuple[str, Fault]]:
    """Kinds of fault for ever, each as often as its weight says before any comes more often: none is left out by chance."""
    while True:
        cards = [name for name, (_, weight) in kinds.items() for _ in range(weight)]
        dice.shuffle(cards)
        for name in cards:
            yield name, kinds[name][0]


def supervise(system: SystemUnderTest) -> int:
    """Start workers that ended by themselves, as a service manager would; returns how many. One thread's business."""
    ended = [worker for worker in system.workers if not worker.running]
    for worker in ended:
        worker.start()
    return len(ended)


def workers_back(system: SystemUnderTest) -> None:
    """Wait until every worker receives."""
    supervise(system)
    for worker in system.workers:
        eventually(lambda worker=worker: worker.connected, 240, worker.log)
