"""The test servers themselves: a test that trusts them should not have to wonder."""

from __future__ import annotations

from collections.abc import Callable

import kombu
import psycopg
import pytest
import redis

from servers.rabbitmq import RabbitMQ
from taximeter_cli.embedded.postgres import Postgres
from taximeter_cli.embedded.process import start_token
from taximeter_cli.embedded.valkey import Valkey


def test_each_test_has_a_database_of_its_own(database_url: str, empty_database_url: str):
    assert database_url != empty_database_url
    for url in (database_url, empty_database_url):
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE mine (id int)")
            (superuser,) = connection.execute("SELECT usesuper FROM pg_user WHERE usename = current_user").fetchone()
            assert not superuser


def test_broker_takes_a_message(broker_url: str):
    with kombu.Connection(broker_url, connect_timeout=5) as connection, connection.SimpleQueue("q") as queue:
        queue.put(b"x", content_type="application/octet-stream", content_encoding="binary")
        message = queue.get(timeout=5)
        assert message.body == b"x"
        message.ack()


def test_flags_database_is_empty(redis_client: redis.Redis):
    assert redis_client.dbsize() == 0
    redis_client.set("left", "over")


def test_flags_database_is_empty_again(redis_client: redis.Redis):
    assert redis_client.dbsize() == 0


def test_own_postgres_survives_a_crash(own_postgres: Callable[..., Postgres]):
    server = own_postgres()
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (id int)")
    first, url = server.pid, server.url()
    server.kill()
    assert start_token(first) is None
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    server.start()
    assert server.url() == url
    with psycopg.connect(url) as connection:
        connection.execute("SELECT * FROM kept")


def test_own_valkey_survives_a_crash(own_valkey: Callable[..., Valkey]):
    server = own_valkey({"appendfsync": "always"})
    server.client().set("kept", "1")
    url = server.url()
    server.kill()
    server.start()
    assert server.url() == url
    assert server.client().get("kept") == b"1"


def test_own_rabbitmq_survives_a_crash(own_rabbitmq: Callable[[], RabbitMQ]):
    node = own_rabbitmq()
    vhost, url = node.make_vhost(), node.url()
    node.kill()
    node.start()
    assert node.url() == url
    assert vhost in {entry["name"] for entry in node.api("GET", "vhosts")}
