"""TLS to all three servers, by their own hands, with and without certificates of ours.

The right authority works end to end; a wrong one, a wrong name, plain text, and a missing or foreign certificate of ours are refused, and
the refusal says which it was.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.testclient import TestClient

from dashboard_factory import bearer, make_settings
from instances import taximeter
from servers import rabbitmq, require
from servers.authority import Authority
from servers.databases import make_database, migrated_template
from servers.encrypted import EncryptedPostgres, EncryptedRedis, Files, postgresql_binaries, redis_program
from taximeter import Meter
from taximeter.brokers.tls import split_tls
from taximeter_cli.embedded.process import free_port
from taximeter_cli.embedded.valkey import BROKER_DATABASE, FLAG_DATABASE
from taximeter_cli.receipts import Receipts
from taximeter_dashboard.app import create_app
from taximeter_db import connect
from taximeter_db.errors import DatabaseUnavailableError
from taximeter_worker.consume.brokers.source import make_source
from taximeter_worker.errors import FlagsUnavailableError, SourceLostError
from taximeter_worker.flags.connecting import connect_flags
from taximeter_worker.settings import Settings
from waiting import eventually
from workers import Ledger, WorkerProcess, set_prices

MINE = "taximeter-tests"
"""The name in our certificate, and of RabbitMQ's user that it logs in."""


@dataclass
class Encrypted:
    """The three servers, what we show them, and what somebody has whom they do not know."""

    files: Files
    strangers_ca: Path
    strangers: Files
    """Certified by another authority; believes in the right one."""
    postgres: EncryptedPostgres
    redis: EncryptedRedis
    rabbitmq: rabbitmq.RabbitMQ
    database_url: str = ""

    def start(self) -> None:
        self.postgres.start()
        self.redis.start()
        self.rabbitmq.start()
        self.database_url = self.postgres.url(make_database(self.postgres, migrated_template(self.postgres)))
        set_prices(self.database_url)

    def stop(self) -> None:
        self.rabbitmq.close()
        self.redis.stop()
        self.postgres.stop("immediate")

    def bare(self, kind: str) -> str:
        """A broker's address without a word about certificates."""
        return self.rabbitmq.url() if kind == "rabbitmq" else self.redis.bare_url(BROKER_DATABASE)

    def broker(self, kind: str) -> str:
        return self.files.of(self.bare(kind))


THEIRS, BOTH = "their certificate", "both certificates"


@pytest.fixture(scope="module")
def each_encrypted(server_folder: Path) -> Iterator[Callable[[str], Encrypted]]:
    """Both sets of servers, each started when it is first asked for: six seconds."""
    require("A PostgreSQL with TLS", postgresql_binaries(), "install postgresql")
    require("A Redis with TLS", redis_program(), "install redis-server")
    require("RabbitMQ", rabbitmq.installed(), "install rabbitmq-server")
    made: dict[str, Encrypted] = {}

    def make(which: str) -> Encrypted:
        if which not in made:
            made[which] = _servers(Path(tempfile.mkdtemp(dir=server_folder)), mutual=which == BOTH)
            made[which].start()
        return made[which]

    yield make
    for one in made.values():
        one.stop()


@pytest.fixture(params=[THEIRS, BOTH])
def encrypted(request: pytest.FixtureRequest, each_encrypted: Callable[[str], Encrypted]) -> Encrypted:
    return each_encrypted(request.param)


def _servers(folder: Path, *, mutual: bool) -> Encrypted:
    folder.chmod(0o711)
    right, wrong = Authority(folder / "right"), Authority(folder / "wrong")
    files = Files(right.ca, *(right.issue(MINE) if mutual else ()))
    certificate, key = right.issue("127.0.0.1")
    wanted = {
        "cacertfile": right.ca,
        "certfile": certificate,
        "keyfile": key,
        "verify": "verify_peer",
        "fail_if_no_peer_cert": str(mutual).lower(),
    }
    (folder / "redis").mkdir()
    return Encrypted(
        files=files,
        strangers_ca=wrong.ca,
        strangers=Files(right.ca, *wrong.issue(MINE)),
        postgres=EncryptedPostgres(folder / "postgres", right, files, mutual=mutual),
        redis=EncryptedRedis(folder / "redis", right, files, mutual=mutual),
        rabbitmq=rabbitmq.RabbitMQ(folder / "rabbitmq", tls=wanted),
    )


@pytest.mark.timeout(900)
def test_of_several_nodes_the_one_that_answers_has_its_name_verified(
    each_encrypted: Callable[[str], Encrypted], new_worker: Callable[..., WorkerProcess]
):
    """The certificate is for 127.0.0.1; the first node of the address has another name, and is away."""
    encrypted = each_encrypted(THEIRS)
    address = f"amqps://guest:guest@localhost:{free_port()}/;{encrypted.broker('rabbitmq')}"
    worker = new_worker(encrypted.database_url, address, encrypted.redis.url(FLAG_DATABASE)).start()
    eventually(lambda: worker.connected, 120, "booking connects")
    assert worker.stop() == 0


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["rabbitmq", "redis"])
def test_the_whole_system_encrypted(
    kind: str, encrypted: Encrypted, new_worker: Callable[..., WorkerProcess], tmp_path: Path
):
    broker, flags, database = encrypted.broker(kind), encrypted.redis.url(FLAG_DATABASE), encrypted.database_url
    workspace, ledger = f"by-{kind}", Ledger(database)
    worker = new_worker(database, broker, flags).start()
    eventually(lambda: worker.connected, what="a worker that reaches all three")
    with Meter(broker_url=broker, redis_url=flags, spool=tmp_path / "spool", timeout_seconds=2) as meter:
        meter.record(workspace, tool="chat", provider="p", model="m", quantities={"input_tokens": 130_000})
        meter.flush(timeout=20)
        eventually(lambda: not meter.enabled(workspace))
    addresses = {"TAXIMETER_DATABASE_URL": database, "TAXIMETER_BROKER_URL": broker, "TAXIMETER_REDIS_URL": flags}
    done = taximeter("credit", workspace, "5", "--id", "p", **addresses)
    assert done.returncode == 0, done.stderr
    assert "Redis did not take" not in done.stderr
    assert ledger.balance(workspace) == "4.87"
    eventually(
        lambda: worker.metrics()['taximeter_workspaces{status="sufficient"}'] >= 1, what="the metrics' own login"
    )
    with TestClient(create_app(make_settings(database), Receipts(), None)) as page:
        answer = page.get(f"/api/v1/workspaces/{workspace}/usages", headers=bearer(workspaces=[workspace]))
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["items"]) == 1
    eventually(lambda: "ready." in worker.text(), what="Celery's own connection")
    assert worker.stop() == 0
    assert "insecure" not in worker.text().lower()
    ledger.verify()
    ledger.close()


CASES = {
    "another authority": "CERTIFICATE_VERIFY_FAILED|certificate verify failed",
    "another name": "match|mismatch|not valid for",
    "no certificate of ours": "certificate required|CERTIFICATE_REQUIRED|requires a valid client certificate|certificate of ours",
    "a certificate of nobody they know": "unknown ca|UNKNOWN_CA|certificate of ours",
}
Spoiled = tuple[Callable[[str], str], str]
COMBINATIONS = [
    (servers, case) for servers in (THEIRS, BOTH) for case in CASES if servers == BOTH or "certificate" not in case
]
each_case = pytest.mark.parametrize(("encrypted", "spoiled"), COMBINATIONS, indirect=True)


@pytest.fixture
def spoiled(request: pytest.FixtureRequest, encrypted: Encrypted) -> Spoiled:
    """Makes of a server's bare address one that must be refused; and what the refusal says."""
    files = encrypted.files
    makes: dict[str, Callable[[str], str]] = {
        "another authority": Files(encrypted.strangers_ca, files.certificate, files.key).of,
        "another name": lambda url: files.of(url.replace("127.0.0.1", "localhost")),
        "no certificate of ours": Files(files.ca).of,
        "a certificate of nobody they know": encrypted.strangers.of,
    }
    return makes[request.param], CASES[request.param]


@each_case
def test_postgresql_and_we_believe_each_other_only_with_certificates(spoiled: Spoiled, encrypted: Encrypted):
    make, says = spoiled
    with pytest.raises(DatabaseUnavailableError, match=says):
        connect.connect(make(encrypted.postgres.bare_url()))


@each_case
def test_redis_and_we_believe_each_other_only_with_certificates(spoiled: Spoiled, encrypted: Encrypted):
    make, says = spoiled
    with pytest.raises(FlagsUnavailableError, match=says):
        connect_flags(make(encrypted.redis.bare_url())).ping()


@each_case
@pytest.mark.parametrize("kind", ["rabbitmq", "redis"])
def test_a_tool_gives_its_events_to_no_stranger(kind: str, spoiled: Spoiled, encrypted: Encrypted, tmp_path: Path):
    make, says = spoiled
    meter = Meter(broker_url=make(encrypted.bare(kind)), spool=tmp_path / "spool")
    try:
        meter.record("acme", tool="chat", quantities={"requests": 1})
        eventually(lambda: meter.stats().last_error, 20, "a refusal")
        error = meter.stats().last_error
        assert any(word.lower() in error.lower() for word in says.split("|")), error
        assert meter.stats().spooled_events == 1
    finally:
        meter.close(timeout=0)


@each_case
@pytest.mark.parametrize("kind", ["rabbitmq", "redis"])
def test_a_worker_takes_its_events_from_no_stranger(kind: str, spoiled: Spoiled, encrypted: Encrypted):
    make, says = spoiled
    url = make(encrypted.bare(kind))
    source = make_source(Settings(database_url="postgresql://nowhere", broker_url=url, redis_url="redis://nowhere"))
    try:
        with pytest.raises(SourceLostError, match=f"(?i){says}"):
            source.open()
    finally:
        source.close()


def test_nobody_falls_back_to_plain_text(database_url: str, valkey, encrypted: Encrypted):
    """Neither we, with a server that speaks no TLS, nor the servers, with a client that speaks none."""
    with pytest.raises(DatabaseUnavailableError, match="SSL"):
        connect.connect(encrypted.files.of(database_url))
    with pytest.raises(DatabaseUnavailableError, match="no encryption"):
        connect.connect(f"{encrypted.postgres.bare_url()}?sslmode=disable")
    with pytest.raises(FlagsUnavailableError):
        connect_flags(encrypted.files.of(valkey.url(0).replace("redis://", "rediss://"))).ping()
    with pytest.raises(FlagsUnavailableError):
        connect_flags(encrypted.redis.bare_url().replace("rediss://", "redis://")).ping()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("encrypted", [BOTH], indirect=True)
def test_a_certificate_alone_logs_in_to_rabbitmq(
    encrypted: Encrypted, new_worker: Callable[..., WorkerProcess], tmp_path: Path
):
    node = encrypted.rabbitmq
    node.api("PUT", f"users/{MINE}", {"password_hash": "", "tags": ""})
    node.api("PUT", f"permissions/%2F/{MINE}", {"configure": ".*", "write": ".*", "read": ".*"})
    place = urlsplit(node.url()).netloc.rpartition("@")[2]
    broker = encrypted.files.of(f"amqps://{place}/%2F") + "&login_method=EXTERNAL"
    worker = new_worker(encrypted.database_url, broker, encrypted.redis.url(FLAG_DATABASE)).start()
    eventually(lambda: worker.connected and "ready." in worker.text())
    with Meter(broker_url=broker, spool=tmp_path / "spool") as meter:
        meter.record("by-certificate", tool="chat", provider="p", model="m", quantities={"input_tokens": 1000})
        meter.flush(timeout=20)
    ledger = Ledger(encrypted.database_url)
    eventually(lambda: ledger.balance("by-certificate") == "-0.001")
    ledger.close()
    # The node's list of connections is some seconds old.
    eventually(lambda: {one["user"] for one in node.api("GET", "connections")} == {MINE}, what="nobody logged in else")
    assert worker.stop() == 0


def test_an_address_names_the_files():
    url, options = split_tls(
        "amqps://u:p@host:5671/v?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem&heartbeat=5"
    )
    assert url == "amqps://u:p@host:5671/v?heartbeat=5"
    assert options is not None
    found = {name: options[name] for name in ("ca_certs", "certfile", "keyfile", "server_hostname")}
    assert found == {"ca_certs": "/ca.pem", "certfile": "/c.pem", "keyfile": "/k.pem", "server_hostname": "host"}
    several, shared = split_tls("amqps://one;amqps://two?ssl_ca_certs=/ca.pem")
    assert several == "amqps://one;amqps://two"
    assert shared is not None
    assert (shared["server_hostname"], shared["ca_certs"]) == ("one", "/ca.pem")
    assert split_tls("amqp://host") == ("amqp://host", None)
