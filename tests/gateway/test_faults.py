"""The gateway while things fail: what was answered by 202 has arrived, and what was not is safe to send again."""

from __future__ import annotations

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import pytest
import redis

from taximeter import names
from taximeter_cli.embedded.valkey import BROKER_DATABASE
from waiting import eventually

BATCH = {"content-type": names.CONTENT_TYPE_BATCH}


def test_what_was_answered_by_202_survives_a_kill_right_after_it(start_gateway, new_key, event, arrived):
    gateway, key = start_gateway(), new_key()
    answered: set[str] = set()
    for round_number in range(6):
        ids = [f"r{round_number}-{at}" for at in range(20)]
        with gateway.client(key) as client:
            answer = client.post("/v1/events", content=json.dumps([event(one) for one in ids]), headers=BATCH)
        gateway.kill()
        assert answer.status_code == 202
        answered.update(ids)
        gateway.start()
    assert {one["id"] for one in arrived()} >= answered


def test_a_stop_answers_what_was_begun_and_loses_nothing(start_gateway, new_key, event, arrived):
    gateway, key = start_gateway(), new_key()
    answered: set[str] = set()
    begun = threading.Event()

    def publish(name: int) -> None:
        with gateway.client(key) as client:
            for number in range(10_000):
                ids = [f"{name}-{number}-{at}" for at in range(50)]
                try:
                    answer = client.post("/v1/events", content=json.dumps([event(one) for one in ids]), headers=BATCH)
                except httpx.HTTPError:
                    return
                if answer.status_code == 202:
                    answered.update(ids)
                    begun.set()

    with ThreadPoolExecutor(4) as pool:
        for name in range(4):
            pool.submit(publish, name)
        assert begun.wait(30)
        assert gateway.stop() == 0
    assert {one["id"] for one in arrived()} >= answered
    assert answered


def test_with_the_broker_away_the_answer_says_so_and_the_event_comes_later(
    start_gateway, new_key, event, own_valkey, redis_url
):
    server = own_valkey()
    gateway = start_gateway(
        TAXIMETER_BROKER_URL=server.url(BROKER_DATABASE),
        TAXIMETER_GATEWAY_CONFIRM_SECONDS="1",
        TAXIMETER_GATEWAY_SPOOL_BYTES_MAX="200000",
    )
    with gateway.client(new_key()) as client:
        assert client.post("/v1/events", content=json.dumps([event("before")]), headers=BATCH).status_code == 202
        server.kill()
        answer = client.post("/v1/events", content=json.dumps([event("while")]), headers=BATCH)
        assert answer.status_code == 504
        assert "same ids" in answer.json()["detail"]
        assert int(answer.headers["retry-after"]) > 0
        large = json.dumps([event(f"large-{at}", input="x" * 1000) for at in range(100)])
        statuses = {client.post("/v1/events", content=large, headers=BATCH).status_code for _ in range(5)}
        assert statuses == {504, 503}, "beyond its bound it takes nothing"
        server.start()
        eventually(
            lambda: client.post("/v1/events", content=json.dumps([event("while")]), headers=BATCH).status_code == 202
        )
    with redis.Redis.from_url(server.url(BROKER_DATABASE)) as broker:
        ids = [one["id"] for body in broker.lrange(names.USAGE_QUEUE, 0, -1) for one in json.loads(body)]
    assert "while" in ids


def test_slow_clients_hold_up_nobody(start_gateway, new_key, event, arrived):
    gateway, key = start_gateway(), new_key()
    head = (
        "POST /v1/events HTTP/1.1\r\nhost: g\r\ncontent-length: 1000\r\n"
        f"content-type: {names.CONTENT_TYPE_EVENT}\r\nauthorization: Bearer {key}\r\n\r\n"
    ).encode()
    slow = []
    try:
        for number in range(1000):
            connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=30)
            connection.sendall(head + b"{" if number % 2 else head[: number % 200])
            slow.append(connection)
        with gateway.client(key) as client:
            for number in range(20):
                connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=30)
                slow.append(connection)
                connection.sendall(head + b"{")
                answer = client.post("/v1/events", content=json.dumps([event(f"e{number}")]), headers=BATCH)
                assert answer.status_code == 202
                connection.setblocking(False)
                with pytest.raises(BlockingIOError):  # answered, while the one before it is still waited for
                    connection.recv(1)
        eventually(lambda: slow[0].recv(100) == b"", what="who brings no head is let go of")
        answer = slow[1].recv(1000)
        assert b" 408 " in answer.partition(b"\r\n")[0]
    finally:
        for connection in slow:
            connection.close()
    assert len(arrived()) == 20


def test_the_keys_that_are_known_go_on_to_count_without_the_database(start_gateway, own_postgres, event, arrived):
    from taximeter_cli.embedded.logins import part_url
    from taximeter_db import connect, migrate, producer_keys

    server = own_postgres()
    migrate.upgrade(server.url())
    with connect.connection(server.url()) as conn:
        key = producer_keys.create(conn, "mine", producer_keys.Scope(), "test")
    gateway = start_gateway(TAXIMETER_DATABASE_URL=part_url(server.url(), "gateway"))
    with gateway.client(key) as client, gateway.client(producer_keys.PREFIX + "x" * 43) as stranger:
        assert client.post("/v1/events", content=json.dumps([event("a")]), headers=BATCH).status_code == 202
        server.stop("immediate")
        assert client.post("/v1/events", content=json.dumps([event("b")]), headers=BATCH).status_code == 202
        assert stranger.post("/v1/events", content="[]", headers=BATCH).status_code in {401, 503}
    assert [one["id"] for one in arrived()] == ["a", "b"]
