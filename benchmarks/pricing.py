"""How fast the compiled book prices events: one process, 5,000 entries with history, no database.

Two figures for each case, by wall clock and by this process's CPU time; on a machine that does other work the second
one says what the code costs. Run: ``python -m benchmarks.pricing [--events N]``.
"""

from __future__ import annotations

import argparse
import datetime as dt
import random
import time
from collections.abc import Callable
from decimal import Decimal

from taximeter.pricing.price_book import PriceBook
from taximeter.pricing.price_index import microseconds
from taximeter_db.ledger.events import Usage
from taximeter_db.prices.store import Entry, Target, Tier, Window

MODELS = 416
STARTS = (None, dt.datetime(2026, 3, 1, tzinfo=dt.UTC), dt.datetime(2026, 9, 1, tzinfo=dt.UTC))
UNITS = (("input_tokens", "2.5"), ("output_tokens", "10"), ("cached_input_tokens", "1.25"), ("cache_write_tokens", "3"))
SINCE = microseconds(dt.datetime(2026, 10, 1, tzinfo=dt.UTC))
MONTH_US = 30 * 86_400 * 1_000_000
ROUNDS = 5


def entries() -> list[Entry]:
    """About 5,000 entries: models with three prices in time for each of four units."""
    found: list[Entry] = []
    for number in range(MODELS):
        for unit, amount in UNITS:
            for later, start in enumerate(STARTS):
                found.append(
                    Entry(
                        id=len(found) + 1,
                        revision=len(found) + 1,
                        target=Target(None, "provider", f"model-{number}"),
                        unit=unit,
                        amount=Decimal(amount) + later,
                        per=Decimal(1_000_000),
                        effective_from=start,
                    )
                )
    return found


def usages(count: int, spread_us: int = MONTH_US) -> list[Usage]:
    """Narrow events: two units, models by Zipf, 1,000 workspaces, times within a month."""
    chance = random.Random(7)
    weights = [1 / (rank + 1) for rank in range(MODELS)]
    return [
        Usage(
            workspace_id=f"w{chance.randrange(1000)}",
            event_id="e",
            key=b"",
            fingerprint=b"",
            tool="chat",
            provider="provider",
            model=f"model-{model}",
            quantities={"input_tokens": chance.randrange(1, 9000), "output_tokens": chance.randrange(1, 2000)},
            occurred_at=SINCE + chance.randrange(spread_us),
            payload=None,
            raw=b"",
        )
        for model in chance.choices(range(MODELS), weights, k=count)
    ]


def best(work: Callable[[], object], events: int) -> str:
    """The best of some rounds, in events a second."""
    work()
    wall, cpu = [], []
    for _ in range(ROUNDS):
        started, used = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    return (
        f"{events / min(wall):>12,.0f}/s wall  {events / min(cpu):>12,.0f}/s CPU  {min(cpu) / events * 1e9:>7,.0f} ns"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    count = parser.parse_args().events
    plain = entries()
    batch = usages(count)
    one = Target(None, "provider", "model-0")
    rules = {
        "flat prices": [],
        "+ a markup for the tool": [("@multiplier", Target("chat", None, None), {})],
        "+ a discount for one workspace": [("@multiplier", Target(None, None, None, "w1"), {})],
        "+ hours on the busiest model": [("input_tokens", one, {"daily": (Window(0, 3600, Decimal(1)),)})],
        "+ long-context tiers there": [("input_tokens", one, {"tiers": (Tier(5000, Decimal(5)),)})],
        "+ a minimum charge for the tool": [("@minimum", Target("chat", None, None), {})],
    }
    print(f"{len(plain):,} entries, {count:,} events of two units")
    for name, more in rules.items():
        extra = [
            Entry(id=0, revision=10**6, target=target, unit=unit, amount=Decimal("1.1"), effective_from=None, **fields)
            if unit.startswith("@")
            else Entry(
                id=0, revision=10**6, target=target, unit=unit, amount=Decimal(1), effective_from=STARTS[-1], **fields
            )
            for unit, target, fields in more
        ]
        book = PriceBook(10**6, [*plain, *extra])
        some = batch if name != "+ a minimum charge for the tool" else batch[: count // 20]
        print(f"{name:<34}{best(lambda b=book, s=some: b.price_all(s), len(some))}")
    book = PriceBook(10**6, plain)
    events = [(u.tool, u.provider, u.model, u.quantities, u.occurred_at) for u in batch]
    print(f"{'flat prices, one call an event':<34}{best(lambda: [book.price(*event) for event in events], count)}")


if __name__ == "__main__":
    main()
