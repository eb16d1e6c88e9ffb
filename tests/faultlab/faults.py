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

import psycopg

from faultlab.stage import Stage, freeze
from servers.rabbitmq import RabbitMQ
from taximeter_worker import failpoints
from workers import WorkerProcess, eventually

Fault = Callable[[Stage, random.Random], bool | None]

REPLY_SECONDS_MAX = 15.0
FAILPOINT_SECONDS_MAX = 20.0


# -- processes of ours ----------------------------------------------------------------------------------------------


def _back(worker: WorkerProcess) -> None:
    worker.start()


def worker_killed(stage: Stage, dice: random.Random) -> None:
    worker = dice.choice(stage.workers)
    worker.kill()
    _back(worker)


def worker_killed_at_a_failpoint(stage: Stage, dice: random.Random) -> bool:
    worker = dice.choice(stage.workers)
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


def worker_frozen(stage: Stage, dice: random.Random) -> None:
    process = dice.choice(stage.workers).process
    assert process is not None
    freeze(process.pid, dice.uniform(0.5, 6))


def worker_terminated(stage: Stage, dice: random.Random) -> None:
    worker = dice.choice(stage.workers)
    # Celery's handlers must stand; before that a SIGTERM ends it as it ends any process.
    if worker.connected:
        code = worker.stop(90)
        assert code == 0, worker.text()[-3000:]
    worker.kill()
    _back(worker)


def producer_killed(stage: Stage, dice: random.Random) -> None:
    number = dice.choice(list(stage.producers))
    process = stage.producers[number]
    process.kill()
    process.wait()
    stage.start_producer(number)


def producer_frozen(stage: Stage, dice: random.Random) -> None:
    freeze(stage.producers[dice.choice(list(stage.producers))].pid, dice.uniform(0.5, 5))


# -- connections ----------------------------------------------------------------------------------------------------


def connections_cut(stage: Stage, dice: random.Random) -> None:
    proxy = dice.choice(list(stage.proxies.values()))
    for _ in range(dice.randrange(1, 4)):
        proxy.cut()
        time.sleep(dice.uniform(0, 0.3))


def connections_refused(stage: Stage, dice: random.Random) -> None:
    proxy = dice.choice(list(stage.proxies.values()))
    proxy.refuse()
    time.sleep(dice.uniform(0.5, 4))
    proxy.refuse(False)


def connections_stalled(stage: Stage, dice: random.Random) -> None:
    proxy = dice.choice(list(stage.proxies.values()))
    proxy.stall(replies_only=dice.random() < 0.5)
    time.sleep(dice.uniform(0.5, 6))
    proxy.resume()


def connections_sliced(stage: Stage, dice: random.Random) -> None:
    proxy = dice.choice(list(stage.proxies.values()))
    proxy.slice(dice.randrange(16, 200))
    time.sleep(dice.uniform(0.5, 3))
    proxy.slice(65536)


def _drop(stage: Stage, way: str, needle: bytes) -> bool:
    proxy = stage.proxies[way]
    dropped = proxy.drop_reply(needle)
    happened = dropped.wait(REPLY_SECONDS_MAX)
    proxy.forget_reply()
    return happened


def confirm_dropped(stage: Stage, dice: random.Random) -> bool:
    # basic.ack is method 60.80 of AMQP; the reply to LPUSH is the length of the list.
    return _drop(stage, "producers to broker", b"\x00\x3c\x00\x50" if stage.broker_kind == "rabbitmq" else b":")


def delivery_dropped(stage: Stage, dice: random.Random) -> bool:
    return _drop(stage, "workers to broker", b"specversion")


def commit_reply_dropped(stage: Stage, dice: random.Random) -> bool:
    return _drop(stage, "workers to PostgreSQL", b"COMMIT\x00")


def flag_reply_dropped(stage: Stage, dice: random.Random) -> bool:
    return _drop(stage, "workers to flags", b"\r\n:")


def spool_disk_full(stage: Stage, dice: random.Random) -> None:
    stage.spool_disk.fill()
    time.sleep(dice.uniform(0.5, 3))
    stage.spool_disk.relieve()


# -- servers --------------------------------------------------------------------------------------------------------


def broker_killed(stage: Stage, dice: random.Random) -> None:
    stage.broker.kill()
    time.sleep(dice.uniform(0, 2))
    stage.restart_broker()


def broker_frozen(stage: Stage, dice: random.Random) -> None:
    freeze(stage.broker.pid, dice.uniform(1, 8))


def memory_alarm(stage: Stage, dice: random.Random) -> None:
    if isinstance(stage.broker, RabbitMQ):
        stage.broker.ctl("set_vm_memory_high_watermark", "0")
        time.sleep(dice.uniform(1, 4))
        stage.broker.ctl("set_vm_memory_high_watermark", "0.4")
        return
    with stage.broker.client() as client:
        client.config_set("maxmemory", "1")
        time.sleep(dice.uniform(1, 4))
        client.config_set("maxmemory", "0")


def broker_disk_alarm(stage: Stage, dice: random.Random) -> bool:
    if not isinstance(stage.broker, RabbitMQ):
        return False
    stage.broker.ctl("set_disk_free_limit", "9000GB")
    time.sleep(dice.uniform(1, 4))
    stage.broker.ctl("set_disk_free_limit", "50MB")
    return True


def postgres_killed(stage: Stage, dice: random.Random) -> None:
    stage.postgres.kill()
    time.sleep(dice.uniform(0, 2))
    stage.restart_postgres()


def postgres_stopped_immediate(stage: Stage, dice: random.Random) -> None:
    stage.postgres.stop("immediate")
    time.sleep(dice.uniform(0, 3))
    stage.restart_postgres()


def postgres_restarted(stage: Stage, dice: random.Random) -> None:
    stage.postgres.stop("fast")
    stage.restart_postgres()


def postgres_frozen(stage: Stage, dice: random.Random) -> None:
    freeze(stage.postgres.pid, dice.uniform(1, 8))


def backend_killed(stage: Stage, dice: random.Random) -> None:
    """One backend dies by SIGKILL: PostgreSQL throws all others out and recovers."""
    with psycopg.connect(stage.postgres.admin_url()) as conn:
        rows = conn.execute("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'taximeter booking%'")
        pids = [row[0] for row in rows.fetchall()]
    if pids:
        subprocess.run(["kill", "-9", str(dice.choice(pids))], check=False)
        time.sleep(1)
    stage.restart_postgres()


def database_disk_full(stage: Stage, dice: random.Random) -> None:
    stage.database_disk.fill()
    time.sleep(dice.uniform(1, 5))
    stage.database_disk.relieve()
    # It ends when not even its log of changes can be written.
    stage.restart_postgres()


def flags_killed(stage: Stage, dice: random.Random) -> None:
    stage.flags.kill()
    time.sleep(dice.uniform(0, 2))
    stage.restart_flags()


def flags_frozen(stage: Stage, dice: random.Random) -> None:
    freeze(stage.flags.pid, dice.uniform(1, 6))


def flags_flushed(stage: Stage, dice: random.Random) -> None:
    with stage.flags.client() as client:
        client.flushall()


PROCESSES: dict[str, tuple[Fault, int]] = {
    "worker kill -9": (worker_killed, 3),
    "worker kill -9 at a failpoint": (worker_killed_at_a_failpoint, 3),
    "worker SIGSTOP": (worker_frozen, 3),
    "worker SIGTERM": (worker_terminated, 1),
    "producer kill -9": (producer_killed, 3),
    "producer SIGSTOP": (producer_frozen, 2),
    "spool disk full": (spool_disk_full, 2),
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
    "flag Valkey kill -9": (flags_killed, 2),
    "flag Valkey SIGSTOP": (flags_frozen, 2),
    "flag Valkey flushed": (flags_flushed, 2),
}


def deck(kinds: dict[str, tuple[Fault, int]], dice: random.Random) -> Iterator[tuple[str, Fault]]:
    """Kinds of fault for ever, each as often as its weight says before any comes more often: none is left out by chance."""
    while True:
        cards = [name for name, (_, weight) in kinds.items() for _ in range(weight)]
        dice.shuffle(cards)
        for name in cards:
            yield name, kinds[name][0]


def workers_back(stage: Stage) -> None:
    """Wait until every worker receives."""
    for worker in stage.workers:
        eventually(lambda worker=worker: worker.connected, 240, worker.log)
