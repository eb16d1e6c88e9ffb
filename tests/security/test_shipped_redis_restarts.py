"""The shipped users on every Redis and Valkey that is here: the server starts, and starts again with its flags."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import redis

from factories import make_state
from servers import require
from servers.shipped_redis import BINARIES, ShippedRedis
from taximeter import names
from taximeter_cli.embedded.valkey import BROKER_DATABASE
from taximeter_db.connect import connection
from taximeter_db.ledger.events import WorkspaceState
from taximeter_worker.flags import marks
from taximeter_worker.flags.connecting import connect_flags
from taximeter_worker.flags.writer import write_states
from waiting import eventually
from workers import Feed, Ledger, WorkerProcess, usage

FLAGS = 100


@pytest.fixture(params=list(BINARIES))
def shipped(
    request: pytest.FixtureRequest, server_folder: Path, make_secrets: ModuleType, passwords: dict[str, str]
) -> Iterator[ShippedRedis]:
    program = BINARIES[request.param]
    require(request.param, program, "install redis-server")
    server = ShippedRedis(program, Path(tempfile.mkdtemp(dir=server_folder)), make_secrets, passwords)
    server.start()
    yield server
    server.kill()


def insufficient(number: int) -> WorkspaceState:
    return make_state(f"w{number}", -(10**12))


def flags(client: redis.Redis) -> list[str | None]:
    return [client.hget(names.flag_key(f"w{number}"), "enabled") for number in range(FLAGS)]


def test_what_a_script_wrote_is_there_after_a_restart(shipped: ShippedRedis):
    worker = connect_flags(shipped.url("worker"))
    write_states(worker, [insufficient(number) for number in range(FLAGS)])
    with worker.pipeline() as transaction:
        transaction.set(names.CLUSTER_POSITION, "1 00000001 2").lpush(names.USAGE_QUEUE, "x").execute()
    worker.close()
    shipped.kill()
    shipped.start()
    with shipped.client("tool") as tool, shipped.client("worker") as again:
        assert flags(tool) == ["0"] * FLAGS
        assert (again.get(names.CLUSTER_POSITION), again.llen(names.USAGE_QUEUE)) == ("1 00000001 2", 1)
    assert "perm" not in shipped.text().lower()


def test_nobody_is_default(shipped: ShippedRedis):
    commands = [("PING",), ("GET", "x"), ("CONFIG", "GET", "*"), ("AUTH", ""), ("AUTH", "default", ""), ("ACL", "LIST")]
    for words in commands:
        with redis.Redis(port=shipped.port) as stranger, pytest.raises(redis.RedisError) as refused:
            stranger.execute_command(*words)
        assert isinstance(refused.value, redis.AuthenticationError) or "WRONGPASS" in str(refused.value), words


def test_a_worker_goes_on_over_restarts_and_loss_of_the_flag_redis(
    shipped: ShippedRedis, new_worker: Callable[..., WorkerProcess], priced_url: str, ledger: Ledger
):
    """With its data, without a part of it although the mark is there, and with none."""
    worker = new_worker(priced_url, shipped.url("worker", BROKER_DATABASE), shipped.url("worker")).start()
    feed = Feed(shipped.url("worker", BROKER_DATABASE))
    feed.send(*(usage(f"w{number}", 500_000) for number in range(FLAGS)))
    with shipped.client("admin") as admin:
        eventually(lambda: flags(admin) == ["0"] * FLAGS)
        mark = marks.read_ready(admin)
        shipped.kill()
        shipped.start()
        eventually(lambda: (now := marks.read_ready(admin)) and now.run != mark.run, what="all flags are rebuilt")
        assert flags(admin) == ["0"] * FLAGS
        admin.delete(*(names.flag_key(f"w{number}") for number in range(FLAGS)))
        eventually(lambda: flags(admin) == ["0"] * FLAGS, what="the mark alone is not believed")
        admin.flushall()
        eventually(lambda: flags(admin) == ["0"] * FLAGS and marks.read_ready(admin), what="filled again")
    feed.send(usage("w0"))
    eventually(lambda: ledger.usages == FLAGS + 1)
    assert worker.stop() == 0
    assert "NOPERM" not in worker.text()
    with connection(priced_url) as conn:
        assert conn.execute("SELECT count(*) FROM taximeter.stale_flags").fetchone() == (0,)
    feed.close()
