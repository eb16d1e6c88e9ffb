"""What one gateway process takes, in batches of 100, against the SDK's own path to the same broker.

Events a second by the wall clock, beside a worker that books them, and CPU seconds of the gateway (or the tool) for 100,000
events: on a machine that does other work these say what the code costs. Run: ``python -m benchmarks.gateway [--events N]``.
"""

from __future__ import annotations

import argparse
import http.client
import json
import tempfile
import threading
import time
import uuid
from typing import Any

import psutil

from benchmarks.sides import fresh
from benchmarks.stack import Stack, running_stack, wait_for
from taximeter import Meter
from taximeter_cli.embedded.process import free_port
from taximeter_db import connect, producer_keys
from taximeter_db.producer_keys import Scope

BATCH = 100
CONNECTIONS = 8
WORKSPACES = 100
LIMIT_A_SECOND = 10_000
QUANTITIES = {"input_tokens": 1200, "output_tokens": 300}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--without-worker", action="store_true", help="nothing books beside it")
    given = parser.parse_args()
    with running_stack() as stack:
        by_gateway = measure_gateway(stack, given.events, with_worker=not given.without_worker)
        by_sdk = measure_sdk(stack, given.events, with_worker=not given.without_worker)
    print(f"CPU of the gateway against the SDK's: {by_gateway / by_sdk:.2f}")


def measure_gateway(stack: Stack, events: int, *, with_worker: bool) -> float:
    """Tell the rate; returns the CPU seconds for 100,000 events."""
    settings = fresh(stack, WORKSPACES)
    with connect.connection(settings["TAXIMETER_DATABASE_URL"]) as conn:
        key = producer_keys.create(conn, "benchmark", Scope(), "benchmark")
    workers = stack.workers(1, settings) if with_worker else []
    port = free_port(None)
    variables = {**settings, "TAXIMETER_GATEWAY_PORT": str(port)}
    gateway = stack.spawn(["-m", "taximeter_cli.commands.gateway"], variables, "gateway.log")
    wait_for(lambda: answers(port), 60, "the gateway to answer")
    bodies = [body_of(BATCH) for _ in range(events // BATCH)]
    shares = [bodies[number::CONNECTIONS] for number in range(CONNECTIONS)]
    process = psutil.Process(gateway.pid)
    before, begun = process.cpu_times(), time.perf_counter()
    threads = [threading.Thread(target=post, args=(port, key, share)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, after = time.perf_counter() - begun, process.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    rate = len(bodies) * BATCH / seconds
    print(f"gateway: {rate:,.0f} events a second, {per_100_000(cpu, events):.2f} s of its CPU for 100,000 events")
    print(f"{'within' if rate >= LIMIT_A_SECOND else 'UNDER'} {LIMIT_A_SECOND:,} events a second")
    stack.end(gateway, *workers)
    return per_100_000(cpu, events)


def measure_sdk(stack: Stack, events: int, *, with_worker: bool) -> float:
    """Tell the rate of a tool; returns the CPU seconds for 100,000 events."""
    settings = fresh(stack, WORKSPACES)
    workers = stack.workers(1, settings) if with_worker else []
    with (
        tempfile.TemporaryDirectory() as spool,
        Meter(broker_url=settings["TAXIMETER_BROKER_URL"], spool=spool) as meter,
    ):
        begun, cpu = time.perf_counter(), time.process_time()
        for number in range(events):
            meter.record(
                f"ws-{number % WORKSPACES:06d}", tool="chat", provider="openai", model="gpt-4o", quantities=QUANTITIES
            )
        meter.flush(timeout=600)
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    print(
        f"SDK: {events / seconds:,.0f} events a second, {per_100_000(cpu, events):.2f} s of its CPU for 100,000 events"
    )
    stack.end(*workers)
    return per_100_000(cpu, events)


def per_100_000(seconds: float, events: int) -> float:
    return seconds * 100_000 / events


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def body_of(events: int) -> bytes:
    return json.dumps([event(number) for number in range(events)]).encode()


def event(number: int) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": "/benchmark",
        "type": "taximeter.usage.v1",
        "subject": f"ws-{number % WORKSPACES:06d}",
        "time": "2026-11-22T10:00:00Z",
        "data": {"tool": "chat", "provider": "openai", "model": "gpt-4o", "quantities": QUANTITIES},
    }


def post(port: int, key: str, bodies: list[bytes]) -> None:
    """Send bodies one after the other, each until it is taken."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/cloudevents-batch+json"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for body in bodies:
        while True:
            connection.request("POST", "/v1/events", body, headers)
            answer = connection.getresponse()
            told = answer.read()
            if answer.status == 202:
                break
            if answer.status not in {429, 503}:
                raise SystemExit(f"the gateway answers {answer.status}: {told.decode()[:300]}")
            time.sleep(0.05)
    connection.close()


if __name__ == "__main__":
    main()
