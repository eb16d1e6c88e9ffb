"""1,000 concurrent calls of a real client on 5 USD, held, sent, answered, recorded, booked and settled.

Each answer costs a little more than was held for it, because the provider counts more than the request's limit: the balance
may be overdrawn by the sum of that, and by nothing else.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import openai
import pytest
import redis

from holds.conftest import open_holds
from provider_server import Provider, provider
from taximeter import CallHolds, CallRefusedError, Meter, names
from waiting import eventually
from workers import Feed, Ledger, WorkerProcess, payment

THREADS = 32
HELD = 50_000
"""Tokens, each of which costs a microdollar."""
BEYOND = 700
"""Microdollars that an answer costs more than was held for it."""
LEAST = Decimal("-0.12")


@pytest.fixture
def remote() -> Iterator[Provider]:
    """A provider each of whose answers consumed more than the request allowed."""
    usage = {"prompt_tokens": HELD + BEYOND, "completion_tokens": 0, "total_tokens": HELD + BEYOND}
    message = {"role": "assistant", "content": "Hi"}
    answer = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "usage": usage}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    with provider() as running:
        running.answers({"response": {**answer, "choices": choices}})
        yield running


def spend(
    calls: int,
    make_meter: Callable[..., Meter],
    new_worker: Callable[..., WorkerProcess],
    remote: Provider,
    addresses: tuple[str, str, str],
) -> Counter[str]:
    """Make this number of calls by many threads of four meters, on 5 USD; returns how many were made and refused."""
    database_url, broker_url, redis_url = addresses
    new_worker(database_url, broker_url, redis_url).start()
    feed = Feed(broker_url)
    feed.pay(payment("acme", "5.00"))
    feed.close()
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        eventually(lambda: client.hget(names.balance_key("acme"), "balance") == "5")
    meters = [make_meter(broker_url=broker_url, timeout_seconds=30) for _ in range(4)]
    holds = CallHolds(quantities=lambda _asked: {"input_tokens": HELD})
    start = threading.Barrier(THREADS)

    def work(number: int) -> Counter[str]:
        ended: Counter[str] = Counter()
        meter = meters[number % len(meters)]
        with openai.OpenAI(api_key="k", base_url=f"{remote.url}/v1", max_retries=0) as plain:
            chat = meter.wrap(plain, provider="p", hold=holds).chat.completions
            start.wait(60)
            for _ in range(calls // THREADS):
                try:
                    with meter.attribution("acme", tool="chat"):
                        chat.create(model="m", messages=[{"role": "user", "content": "Hi"}])
                except CallRefusedError:
                    ended["refused"] += 1
                else:
                    ended["made"] += 1
        return ended

    with ThreadPoolExecutor(THREADS) as pool:
        ended = sum(pool.map(work, range(THREADS)), Counter())
    for meter in meters:
        meter.flush(timeout=60)
    return ended


def check(ended: Counter[str], ledger: Ledger, client: redis.Redis) -> None:
    """Nothing is overdrawn beyond the bound, and nothing stays held."""
    made = ended["made"]
    eventually(lambda: ledger.one("SELECT count(*) FROM taximeter.usage_log") == made)
    eventually(lambda: open_holds(client) == {})
    cost = Decimal(HELD + BEYOND).scaleb(-6)
    balance = Decimal(ledger.balance("acme"))
    assert balance == 5 - made * cost
    assert balance >= LEAST - made * Decimal(BEYOND).scaleb(-6)
    assert made >= 100  # 5.12 USD pay for 100 of these in any case
    assert ended["refused"] > 0
    lowest = ledger.one("SELECT min(balance_after)::text FROM taximeter.usage_log")
    assert Decimal(lowest) == balance


Addresses = tuple[str, str, str]


@pytest.fixture
def addresses(priced_url: str, valkey_broker_url: str, redis_url: str) -> Addresses:
    return priced_url, valkey_broker_url, redis_url


def test_concurrent_calls_through_a_wrapped_client_never_overdraw_beyond_the_bound(
    make_meter: Any, new_worker: Any, remote: Provider, addresses: Addresses, ledger: Ledger, redis_client: redis.Redis
):
    check(spend(1_024, make_meter, new_worker, remote, addresses), ledger, redis_client)
