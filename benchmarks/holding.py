"""What a hold costs beside a GET of the same Redis, and what its settlement adds to booking.

Hold and GET are measured in turns, call by call, at the median, with each policy of the append-only file: a hold is a write, which
``always`` syncs to the disk before it answers, and a GET is not. Settlement: the write of a batch's balances with the holds
that its usages name against the same write without, a hold. Run: ``python -m benchmarks.holding [--calls N]``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from decimal import Decimal

import redis

from benchmarks.load import workspace_id
from benchmarks.sides import fresh
from benchmarks.stack import running_stack
from taximeter import Meter
from taximeter_db.ledger.events import WorkspaceState
from taximeter_db.money import PICO_PER_USD
from taximeter_worker.flags.writer import write_states

RATIO_MAX = 1.6
SETTLE_MICROSECONDS_MAX = 12.0
WORKSPACES = 100
HOLDS_A_WORKSPACE = 20
COST = Decimal("0.05")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    calls = parser.parse_args().calls
    with running_stack() as stack:
        environment = fresh(stack, WORKSPACES)
        stack.warm_flags(environment)
        url = environment["TAXIMETER_REDIS_URL"]
        with Meter(redis_url=url, timeout_seconds=5) as meter, redis.Redis.from_url(url) as client:
            write_states(client, [_state(number, 1) for number in range(WORKSPACES)])
            for policy in ("always", "everysec"):
                client.config_set("appendfsync", policy)
                print(f"appendfsync {policy}:", end=" ")
                _place(meter, client, calls)
            _slice(meter, calls)
            _settle(meter, redis.Redis.from_url(url, decode_responses=True), max(5, calls // 1000))


def _state(number: int, version: int) -> WorkspaceState:
    return WorkspaceState(workspace_id(number), 10**9 * PICO_PER_USD, 0, 0, 1, 0, version, 10**6, 1_700_000_000_123_456)


def _place(meter: Meter, client: redis.Redis, calls: int) -> None:
    names = [workspace_id(number) for number in range(WORKSPACES)]
    for name in names:
        client.set(f"plain:{name}", "1")
    holds, gets = [], []
    for number in range(calls):
        name = names[number % WORKSPACES]
        gets.append(_timed(lambda: client.get(f"plain:{name}")))  # noqa: B023 -- called at once
        holds.append(_timed(lambda: meter.hold(name, max_cost=COST)))  # noqa: B023
        if number % 1_000 == 999:  # as many as run at a time in life
            for key in client.scan_iter("taximeter:holds:*"):
                client.delete(key)
    get, hold = statistics.median(gets) / 1000, statistics.median(holds) / 1000
    verdict = "within" if hold / get <= RATIO_MAX else "OVER"
    print(f"GET {get:.1f} µs  hold {hold:.1f} µs  ratio {hold / get:.2f}, {verdict} {RATIO_MAX}")


def _slice(meter: Meter, calls: int) -> None:
    with meter.slices(workspace_id(0), max_cost="0.0001", size="10") as slices:
        slices.hold().release()
        taken = [_timed(slices.hold) for _ in range(calls)]
    taken.sort()
    print(f"hold from a slice {statistics.median(taken) / 1000:.2f} µs, p99 {taken[int(0.99 * calls)] / 1000:.2f} µs")


def _settle(meter: Meter, client: redis.Redis, rounds: int) -> None:
    plain, settling, version = [], [], 2
    count = WORKSPACES * HOLDS_A_WORKSPACE
    for _ in range(rounds):
        holds = {
            workspace_id(number): [
                str(meter.hold(workspace_id(number), max_cost=COST).id) for _ in range(HOLDS_A_WORKSPACE)
            ]
            for number in range(WORKSPACES)
        }
        for taken, given in ((plain, {}), (settling, holds)):
            states = [_state(number, version) for number in range(WORKSPACES)]
            taken.append(_timed(lambda: write_states(client, states, holds=given)))  # noqa: B023
            version += 1
    added = (statistics.median(settling) - statistics.median(plain)) / count / 1000
    verdict = "within" if added <= SETTLE_MICROSECONDS_MAX else "OVER"
    print(f"settlement adds {added:.2f} µs a hold, {verdict} {SETTLE_MICROSECONDS_MAX:g} µs")


def _timed(call: Callable[[], object]) -> int:
    began = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - began


if __name__ == "__main__":
    main()
