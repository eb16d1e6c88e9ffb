"""A flag Redis on which holds are granted, and workspaces with money."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import redis

from factories import make_state
from taximeter import Meter, names
from taximeter.pricing.price_book import PriceBook
from taximeter.pricing.published import pack
from taximeter_db.ledger.events import WorkspaceState
from taximeter_db.money import to_pico
from taximeter_db.prices.store import Entry, Target
from taximeter_worker.flags import marks
from taximeter_worker.flags.connecting import server_state
from taximeter_worker.flags.marks import HoldTerms, ReadyMark
from taximeter_worker.flags.writer import write_states
from taximeter_worker.pricing.publishing import publish_book
from worker_fixtures import feed, ledger, new_runtime, new_worker, priced_url, runtime, valkey_broker_url, worker

__all__ = ["feed", "ledger", "new_runtime", "new_worker", "priced_url", "runtime", "valkey_broker_url", "worker"]


def state(workspace: str, balance: str, *, minimum: str = "-0.12", version: int = 1) -> WorkspaceState:
    """A committed state with this balance."""
    least = to_pico(minimum)
    return make_state(workspace, balance, minimum=least, low=max(0, least), version=version)


def warm(client: redis.Redis, *, holds_from: int | None = 0, terms: HoldTerms = HoldTerms()) -> None:  # noqa: B008 -- frozen
    """Mark the cache as a rebuild does."""
    marks.note_ready(client, ReadyMark(1, 0, server_state(client).run, holds_from).under(terms))


def publish_prices(client: redis.Redis, **per_million: str) -> None:
    """Publish a book with what a million of each unit of model m of provider p costs, as a worker does."""
    target = Target(None, "p", "m")
    entries = [
        Entry(id=number, revision=1, target=target, unit=unit, amount=Decimal(amount), per=Decimal(1_000_000))
        for number, (unit, amount) in enumerate(per_million.items(), 1)
    ]
    publish_book(client, pack(PriceBook(1, entries)))


def open_holds(client: redis.Redis, workspace: str = "acme") -> dict[str, int]:
    """What each open hold holds, in microdollars; checks that their sum is the one that is kept."""
    pipeline = client.pipeline(transaction=True)
    pipeline.hgetall(names.holds_key(workspace))
    pipeline.zrange(names.holds_due_key(workspace), 0, -1)
    texts, due = pipeline.execute()
    found = {name: int(text) for name, text in texts.items()}
    total = found.pop("", 0)
    assert total == sum(found.values())
    assert set(due) == set(found)
    return found


@pytest.fixture
def fund(redis_client: redis.Redis) -> Callable[..., None]:
    """``fund("acme", "5.00")`` writes a balance as a worker would, on a warm cache."""
    warm(redis_client)

    def write(workspace: str, balance: str, **more: Any) -> None:
        write_states(redis_client, [state(workspace, balance, **more)])

    return write


@pytest.fixture
def make_meter(tmp_path: Path, redis_url: str) -> Iterator[Callable[..., Meter]]:
    """Factory of meters that can hold; closed at the end without waiting."""
    made: list[Meter] = []

    def make(**settings: Any) -> Meter:
        meter = Meter(**{"spool": tmp_path / "spool", "redis_url": redis_url, "timeout_seconds": 5, **settings})
        made.append(meter)
        return meter

    yield make
    for meter in made:
        meter.close(timeout=0)


@pytest.fixture
def meter(make_meter: Callable[..., Meter]) -> Meter:
    """One that can hold and not record."""
    return make_meter()
