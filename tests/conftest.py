"""Fixtures: real servers, started when the first test asks for one and stopped by their own handle at the end.

Each xdist worker has its own PostgreSQL, Valkey and (if a test asks) RabbitMQ. A fixture named ``own_…`` is a factory
of servers for one test alone, which may stop, kill or freeze them. Start servers from the test's own thread: the
kernel stops them when the thread that started them ends.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import redis

import hypothesis_profile as _hypothesis_profile  # noqa: F401 -- registers it before hypothesis looks for it
from servers import QUICK_POSTGRES, QUICK_VALKEY, require
from servers import rabbitmq as rabbitmq_server
from servers.databases import drop_database, make_database, migrated_template
from taximeter_cli.embedded.logins import part_url
from taximeter_cli.embedded.postgres import Postgres
from taximeter_cli.embedded.valkey import BROKER_DATABASE, FLAG_DATABASE, Valkey

# The tests start dozens of Python processes. Where this is set, each would compile every module that it imports again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


_SERVER_FIXTURES = {"server_folder", "broker_url", "running", "new_instance", "old_redis"}
_MARKED_PATHS = {
    "faults": ("tests/faults/", "tests/system/test_kill_loop.py", "tests/system/test_wrapped_calls_kill_loop.py"),
    # They ask for servers (a provider's too, on this machine), or start whole programs, which start their own.
    "servers": (
        "tests/benchmarks/test_generate.py",
        "tests/cli/test_commands.py",
        "tests/cli/test_process.py",
        "tests/cli/test_up.py",
        "tests/dashboard/browser/",
        "tests/dashboard/test_api_schema.py",
        "tests/gateway/test_schema.py",
        "tests/holds/",
        "tests/integrations/",
        "tests/malformed_input/",
        "tests/model/",
        "tests/producers/integrations/",
        "tests/security/test_secrets.py",
        "tests/system/",
        "tests/worker/test_processes.py",
        "tests/worker/test_settings.py::test_a_worker_without_settings",
    ),
}


RUN_ENDED = "taximeter/run_ended"
"""Where the cache keeps the exit status of the last run."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import what the tier that was asked for leaves out: some import a provider's whole library."""
    path = collection_path.relative_to(config.rootpath).as_posix() + "/" * collection_path.is_dir()
    for marker, paths in _MARKED_PATHS.items():
        if f"not {marker}" in config.option.markexpr and path.startswith(paths):
            return True
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests into tiers: those without any mark need no server and no process of ours (`make test-fast`)."""
    for item in items:
        for marker, paths in _MARKED_PATHS.items():
            if item.nodeid.startswith(paths):
                item.add_marker(marker)
        if _SERVER_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("servers")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Leave for `tools/failed_again.py` how the run ended; the controller's word counts, not a worker's."""
    if not hasattr(session.config, "workerinput"):
        session.config.cache.set(RUN_ENDED, int(exitstatus))


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A short path that the unprivileged user of PostgreSQL can enter."""
    folder = Path(tempfile.mkdtemp(prefix="tx-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(server_folder: Path) -> Iterator[Postgres]:
    """The PostgreSQL shared by the tests of this process. Do not stop it: see ``own_postgres``."""
    server = Postgres(server_folder / "postgres", settings=QUICK_POSTGRES)
    server.start()
    yield server
    server.stop("immediate")


@pytest.fixture
def own_postgres(server_folder: Path) -> Iterator[Callable[..., Postgres]]:
    """Factory ``own_postgres(settings=None)`` of started servers that the test may stop, kill and start again."""
    made: list[Postgres] = []

    def make(settings: Mapping[str, str] | None = None) -> Postgres:
        folder = Path(tempfile.mkdtemp(dir=server_folder))
        folder.chmod(0o711)
        server = Postgres(folder / "postgres", settings={**QUICK_POSTGRES, **(settings or {})})
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.stop("immediate")


@pytest.fixture
def empty_database_url(postgres: Postgres) -> Iterator[str]:
    """A database of this test's own without any table."""
    name = make_database(postgres)
    yield postgres.url(name)
    drop_database(postgres, name)


@pytest.fixture
def database_url(postgres: Postgres) -> Iterator[str]:
    """A migrated database of this test's own, as its owner; ``role_url`` gives the addresses with fewer rights."""
    name = make_database(postgres, migrated_template(postgres))
    yield postgres.url(name)
    drop_database(postgres, name)


@pytest.fixture
def role_url(database_url: str) -> Callable[[str], str]:
    """``role_url(login)``: the address of ``database_url`` for one of "worker", "dashboard", "metrics"."""
    return functools.partial(part_url, database_url)


@pytest.fixture
def new_database(postgres: Postgres) -> Iterator[Callable[[], str]]:
    """Factory of migrated databases, for a test that needs several; returns URLs."""
    names: list[str] = []

    def make() -> str:
        names.append(make_database(postgres, migrated_template(postgres)))
        return postgres.url(names[-1])

    yield make
    for name in names:
        drop_database(postgres, name)


@pytest.fixture(scope="session")
def shared_valkey(server_folder: Path) -> Iterator[Valkey]:
    """The Valkey behind ``valkey``; ask for that one, which is empty."""
    server = Valkey(server_folder / "valkey", settings=QUICK_VALKEY)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def valkey(shared_valkey: Valkey) -> Valkey:
    """An empty Valkey. Do not stop it: see ``own_valkey``."""
    with shared_valkey.client() as client:
        client.flushall()
        client.config_resetstat()
    return shared_valkey


@pytest.fixture
def redis_url(valkey: Valkey) -> str:
    """Where the flags live (database 0)."""
    return valkey.url(FLAG_DATABASE)


@pytest.fixture
def redis_client(valkey: Valkey) -> Iterator[redis.Redis]:
    """A client on the flags' database that answers text."""
    with redis.Redis.from_url(valkey.url(FLAG_DATABASE), decode_responses=True) as client:
        yield client


@pytest.fixture
def own_valkey(server_folder: Path) -> Iterator[Callable[..., Valkey]]:
    """Factory ``own_valkey(settings=None)`` of started servers that the test may stop, kill and start again."""
    made: list[Valkey] = []

    def make(settings: Mapping[str, str] | None = None) -> Valkey:
        server = Valkey(Path(tempfile.mkdtemp(dir=server_folder)), settings={**QUICK_VALKEY, **(settings or {})})
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.kill()


@pytest.fixture(scope="session")
def shared_rabbitmq(server_folder: Path) -> Iterator[rabbitmq_server.RabbitMQ]:
    """The node behind ``rabbitmq`` and ``amqp_url``; its start takes some seconds, once per test process."""
    require("RabbitMQ", rabbitmq_server.installed(), "install rabbitmq-server")
    node = rabbitmq_server.RabbitMQ(server_folder / "rabbitmq")
    try:
        node.start()
        yield node
    finally:
        node.close()


@pytest.fixture
def rabbitmq(shared_rabbitmq: rabbitmq_server.RabbitMQ) -> rabbitmq_server.RabbitMQ:
    """The shared node. Do not stop it and raise no alarm on it: see ``own_rabbitmq``."""
    return shared_rabbitmq


@pytest.fixture
def amqp_url(rabbitmq: rabbitmq_server.RabbitMQ) -> Iterator[str]:
    """A virtual host of this test's own."""
    name = rabbitmq.make_vhost()
    yield rabbitmq.url(name)
    rabbitmq.drop_vhost(name)


@pytest.fixture
def own_rabbitmq(server_folder: Path) -> Iterator[Callable[[], rabbitmq_server.RabbitMQ]]:
    """Factory of started nodes that the test may stop, kill, freeze and start again (about six seconds each)."""
    require("RabbitMQ", rabbitmq_server.installed(), "install rabbitmq-server")
    made: list[rabbitmq_server.RabbitMQ] = []

    def make() -> rabbitmq_server.RabbitMQ:
        node = rabbitmq_server.RabbitMQ(Path(tempfile.mkdtemp(dir=server_folder)))
        made.append(node)
        node.start()
        return node

    yield make
    for node in made:
        node.close()


@pytest.fixture(params=["valkey", "rabbitmq"])
def broker_url(request: pytest.FixtureRequest) -> str:
    """An empty broker; the test runs once on each kind."""
    if request.param == "rabbitmq":
        url: str = request.getfixturevalue("amqp_url")
        return url
    server: Valkey = request.getfixturevalue("valkey")
    return server.url(BROKER_DATABASE)


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment for a child process, without settings of Taximeter's that this shell may have."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TAXIMETER_")}
