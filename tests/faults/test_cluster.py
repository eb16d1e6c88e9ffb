"""A cluster of three RabbitMQ nodes, of which one dies for good: events and tasks go on over the others."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from servers import rabbitmq, require
from servers.rabbitmq import RabbitMQ
from taximeter import Meter, names
from waiting import eventually
from workers import Ledger, WorkerProcess

SECONDS = 120
ROLLED_UP = 'taximeter_task_runs_total{outcome="succeeded",task="taximeter.roll_up"}'


@pytest.fixture
def cluster(server_folder: Path) -> Iterator[list[RabbitMQ]]:
    """Three nodes."""
    require("RabbitMQ", rabbitmq.installed(), "install rabbitmq-server")
    folder = Path(tempfile.mkdtemp(dir=server_folder))
    first = RabbitMQ(folder / "0")
    nodes = [first, *(RabbitMQ(folder / str(number), member_of=first) for number in (1, 2))]
    try:
        for node in nodes:
            node.start()
        yield nodes
    finally:
        for node in reversed(nodes):
            node.close()


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_node_that_dies_for_good_stops_neither_events_nor_tasks(
    cluster: list[RabbitMQ],
    new_worker: Callable[..., WorkerProcess],
    priced_url: str,
    redis_url: str,
    ledger: Ledger,
    tmp_path: Path,
):
    """Killed and its data deleted while worker, beat and meter are connected to it, and it leads every queue."""
    first, other = cluster[0], cluster[1]
    address = ";".join(node.url() for node in cluster)
    worker = new_worker(priced_url, address, redis_url).start()
    eventually(lambda: worker.connected, SECONDS)
    eventually(lambda: worker.metrics()[ROLLED_UP] >= 1, SECONDS, "tasks run")
    assert set(_leaders(other)) >= {names.USAGE_QUEUE, names.PAYMENT_QUEUE, names.DEAD_QUEUE, names.TASK_QUORUM_QUEUE}
    assert set(_leaders(other).values()) == {first.name}
    first.let_queues_settle()
    with Meter(broker_url=address, spool=tmp_path / "spool") as meter:
        record = functools.partial(meter.record, "acme", tool="chat", provider="p", model="m")
        sent = [record(quantities={"input_tokens": 1}) for _ in range(200)]
        meter.flush(SECONDS)
        sent += [record(quantities={"input_tokens": 1}) for _ in range(200)]  # some of it is in flight
        first.kill()
        shutil.rmtree(first.folder / "mnesia")
        sent += [record(quantities={"input_tokens": 1}) for _ in range(200)]
        meter.flush(SECONDS)
    eventually(lambda: ledger.usages == len(set(sent)), SECONDS, "the worker goes on with the other nodes")
    before = worker.metrics()[ROLLED_UP]
    eventually(lambda: worker.metrics()[ROLLED_UP] >= before + 2, SECONDS, "and so do beat and tasks")
    assert first.name not in _leaders(other).values()
    other.ctl("forget_cluster_node", first.name)
    assert worker.stop() == 0
    assert "Traceback" not in worker.text()
    ledger.verify()


def _leaders(node: RabbitMQ) -> dict[str, str]:
    """The node that leads each quorum queue."""
    queues = json.loads(node.ctl("list_queues", "name", "type", "leader", "--formatter", "json"))
    return {queue["name"]: queue["leader"] for queue in queues if queue["type"] == "quorum"}
