"""TLS to all three servers: the right authority works end to end, a wrong one, a wrong name and plain text are refused.

The servers are real; a proxy in front of each holds the certificate, because the tests' PostgreSQL and Valkey are built
without TLS. What is tested is our side: that it encrypts, and whom it believes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from instances import taximeter
from security.authority import Authority, TlsFront
from taximeter import Meter
from taximeter.tls import split_tls
from taximeter_cli.embedded.valkey import BROKER_DATABASE, Valkey
from taximeter_db import connect
from taximeter_db.errors import DatabaseUnavailableError
from taximeter_worker.errors import FlagsUnavailable
from taximeter_worker.flags import connect_flags
from workers import Ledger, WorkerProcess, eventually

Front = Callable[[str], str]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "right")


@pytest.fixture
def front(authority: Authority) -> Iterator[Callable[..., str]]:
    """``front(url, host="127.0.0.1")``: the address behind a front whose certificate is for that host; no scheme yet."""
    made: list[TlsFront] = []

    def make(url: str, host: str = "127.0.0.1") -> str:
        parts = urlsplit(url)
        made.append(TlsFront(parts.port or 0, authority.issue(host)))
        return parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{made[-1].port}").geturl()

    yield make
    for one in made:
        one.close()


def _postgres(url: str, ca: Path) -> str:
    return f"{url}?sslmode=verify-full&sslrootcert={ca}"


def _redis(url: str, ca: Path) -> str:
    return f"{url.replace('redis://', 'rediss://')}?ssl_ca_certs={ca}"


def _amqp(url: str, ca: Path) -> str:
    return f"{url.replace('amqp://', 'amqps://')}?ssl_ca_certs={ca}"


@pytest.mark.parametrize("kind", ["rabbitmq", "valkey"])
def test_the_whole_system_encrypted(
    kind: str,
    request: pytest.FixtureRequest,
    front: Front,
    authority: Authority,
    new_worker: Callable[..., WorkerProcess],
    priced_url: str,
    ledger: Ledger,
    valkey: Valkey,
    tmp_path: Path,
):
    if kind == "rabbitmq":
        broker = _amqp(front(request.getfixturevalue("amqp_url")), authority.ca)
    else:
        broker = _redis(front(valkey.url(BROKER_DATABASE)), authority.ca)
    flags = _redis(front(valkey.url(0)), authority.ca)
    database = _postgres(front(priced_url), authority.ca)
    worker = new_worker(database, broker, flags).start()
    eventually(lambda: worker.connected, what="a worker that reaches all three")
    with Meter(broker_url=broker, redis_url=flags, spool=tmp_path / "spool", timeout_seconds=2) as meter:
        meter.record("acme", tool="chat", provider="p", model="m", quantities={"input_tokens": 130_000})
        meter.flush(timeout=20)
        eventually(lambda: not meter.enabled("acme"))
    addresses = {"TAXIMETER_DATABASE_URL": database, "TAXIMETER_BROKER_URL": broker, "TAXIMETER_REDIS_URL": flags}
    done = taximeter("credit", "acme", "5", "--id", "p", **addresses)
    assert done.returncode == 0, done.stderr
    assert "Redis did not take" not in done.stderr
    assert ledger.balance("acme") == "4.87"
    assert worker.stop() == 0
    assert "insecure" not in worker.text().lower()


CASES = {
    "another authority": "CERTIFICATE_VERIFY_FAILED|certificate verify failed",
    "another name": "match|mismatch|not valid for",
}


@pytest.fixture(params=CASES)
def stranger(
    request: pytest.FixtureRequest, front: Callable[..., str], authority: Authority, tmp_path: Path
) -> tuple[Callable[[str], str], Path, str]:
    """A front to be refused, the authority to believe in, and what the refusal says."""
    if request.param == "another name":
        return (lambda url: front(url, "elsewhere.example")), authority.ca, CASES[request.param]
    return front, Authority(tmp_path / "other").ca, CASES[request.param]


def test_postgresql_is_believed_only_with_its_certificate(
    stranger, database_url: str, front: Front, authority: Authority
):
    make, ca, says = stranger
    with pytest.raises(DatabaseUnavailableError, match=says):
        connect.connect(_postgres(make(database_url), ca))
    with pytest.raises(
        DatabaseUnavailableError, match="SSL"
    ):  # the server itself speaks no TLS: no fall-back to plain text
        connect.connect(_postgres(database_url, authority.ca))


def test_redis_is_believed_only_with_its_certificate(stranger, valkey: Valkey, authority: Authority):
    make, ca, says = stranger
    with pytest.raises(FlagsUnavailable, match=says):
        connect_flags(_redis(make(valkey.url(0)), ca)).ping()
    with pytest.raises(FlagsUnavailable):
        connect_flags(_redis(valkey.url(0), authority.ca)).ping()


@pytest.mark.parametrize("kind", ["rabbitmq", "valkey"])
def test_a_tool_gives_its_events_to_no_stranger(
    kind: str, request: pytest.FixtureRequest, stranger, valkey: Valkey, tmp_path: Path
):
    make, ca, says = stranger
    if kind == "rabbitmq":
        url = _amqp(make(request.getfixturevalue("amqp_url")), ca)
    else:
        url = _redis(make(valkey.url(BROKER_DATABASE)), ca)
    meter = Meter(broker_url=url, spool=tmp_path / "spool")
    try:
        meter.record("acme", tool="chat", quantities={"requests": 1})
        eventually(lambda: meter.stats().last_error, 20, "a refusal")
        assert any(word.lower() in meter.stats().last_error.lower() for word in says.split("|")), (
            meter.stats().last_error
        )
        assert meter.stats().spooled_events == 1
    finally:
        meter.close(timeout=0)


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
