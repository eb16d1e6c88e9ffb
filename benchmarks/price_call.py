"""How long `Meter.price` takes with the whole catalogue published, against the worker's `PriceBook.price` of the same event.

Wall clock and this process's CPU time of a call, looks at Redis included; on a machine that does other work the CPU time
says what the code costs. Run: ``python -m benchmarks.price_call [--calls N]``.
"""

from __future__ import annotations

import argparse
import datetime as dt
import time
from collections.abc import Callable
from decimal import Decimal

import redis

from benchmarks.sides import fresh
from benchmarks.stack import running_stack
from taximeter import Meter
from taximeter.pricing.price_index import microseconds
from taximeter.pricing.published import pack, unpack
from taximeter_worker.pricing.compare import book_of
from taximeter_worker.pricing.genai_catalogue import CATALOGUE, read_catalogue
from taximeter_worker.pricing.publishing import publish_book

ROUNDS = 5
LIMIT_MICROSECONDS = 10
EVENTS = (
    ("openai", "gpt-4o", {"input_tokens": 1200, "output_tokens": 300}),
    ("openai", "gpt-5", {"input_tokens": 10, "cached_input_tokens": 40, "output_tokens": 9, "reasoning_tokens": 70}),
    (
        "anthropic",
        "claude-sonnet-4-5-20250929",
        {"input_tokens": 250_000, "cache_write_1h_tokens": 5, "output_tokens": 8},
    ),
    ("google", "gemini-2.5-flash", {"input_tokens": Decimal("0.5"), "output_tokens": 3}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200_000)
    count = parser.parse_args().calls // len(EVENTS)
    catalogue = read_catalogue()
    book = book_of(catalogue.prices, {CATALOGUE: catalogue.aliases})
    packed = pack(book)
    started = time.perf_counter()
    unpack(packed.book)
    print(
        f"{len(catalogue.prices):,} prices, {len(packed.book):,} bytes, read in {time.perf_counter() - started:.3f} s"
    )
    now = microseconds(dt.datetime.now(dt.UTC))
    with running_stack() as stack:
        url = fresh(stack, 1)["TAXIMETER_REDIS_URL"]
        with redis.Redis.from_url(url, decode_responses=True) as client:
            publish_book(client, packed)
        with Meter(redis_url=url, timeout_seconds=1.0) as meter:
            for provider, model, units in EVENTS:

                def tool(provider: str = provider, model: str = model, units: dict[str, int] = units) -> object:  # type: ignore[assignment]
                    return meter.price("acme", tool="chat", provider=provider, model=model, quantities=units)

                def worker(provider: str = provider, model: str = model, units: dict[str, int] = units) -> object:  # type: ignore[assignment]
                    return book.price("chat", provider, model, units, now, "acme")

                asked, cpu = best(tool, count)
                booked, _ = best(worker, count)
                verdict = "" if cpu < LIMIT_MICROSECONDS else f"  over {LIMIT_MICROSECONDS} µs"
                print(
                    f"{provider} {model:<28} price() {asked:6.2f} µs ({cpu:.2f} CPU)  in the worker {booked:6.2f} µs{verdict}"
                )


def best(call: Callable[[], object], count: int) -> tuple[float, float]:
    """Microseconds of a call by wall clock and by CPU time, the best of some rounds."""
    call()
    rounds = []
    for _ in range(ROUNDS):
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        for _ in range(count):
            call()
        rounds.append(((time.perf_counter_ns() - wall) / count / 1000, (time.process_time_ns() - cpu) / count / 1000))
    return min(wall for wall, _ in rounds), min(cpu for _, cpu in rounds)


if __name__ == "__main__":
    main()
