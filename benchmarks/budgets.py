"""What budgets cost booking: events that no budget concerns, beside a ledger without any.

Three ledgers with the same workspaces: one without budgets, one with 10,000 budgets of other workspaces, and one in which each
workspace has 100 budgets of users that no event names. Batches of one size are booked on each in turns, by the call that a
worker makes; compared are the medians of the rounds. Run: ``python -m benchmarks.budgets [--rounds N]``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any, Final

from psycopg import Connection

from benchmarks.booking import usages
from benchmarks.load import workspace_id
from benchmarks.sides import fresh
from benchmarks.stack import running_stack
from taximeter_db import connect
from taximeter_db.ledger import booking
from taximeter_db.ledger.claims import OptimisticClaims
from taximeter_db.ledger.context import BookingContext

BUDGETS: Final = 10_000
WORKSPACES: Final = 200
WITH_USAGE: Final = 100
BATCH: Final = 1_000
WARM_UP: Final = 10
RATIO_MUST: Final = 0.97

_SET = """
WITH made AS (
    INSERT INTO taximeter.budgets (workspace_id, name, amount, period, hours, zone, user_id, selector, hard, thresholds,
                                   counted_from, window_start)
    SELECT w.id, 'b' || n, 1000, 'total', 0, 'UTC', 'u-' || n, 'user:u-' || n, true, '{50,80,100}',
           to_timestamp(0), to_timestamp(0)
    FROM unnest(%(ids)s::text[]) AS w (id), generate_series(1, %(each)s) AS n
)
UPDATE taximeter.workspaces SET budgets = '[]' WHERE workspace_id = ANY(%(ids)s)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=150)
    rounds = parser.parse_args().rounds
    names = [workspace_id(number) for number in range(WORKSPACES)]
    with running_stack() as stack:
        sides: dict[str, tuple[Connection[Any], BookingContext]] = {}
        having = {"no budgets": [], "10,000 of others": names[WITH_USAGE:], "100 of each": names[:WITH_USAGE]}
        for side, ids in having.items():
            url = fresh(stack, WORKSPACES)["TAXIMETER_DATABASE_URL"]
            with connect.connection(url) as conn:
                conn.execute(_SET, {"ids": ids, "each": BUDGETS // WITH_USAGE})
                conn.execute("ANALYZE taximeter.budgets")
            context = BookingContext(owe_flags=False, claims=OptimisticClaims())
            sides[side] = (connect.booking_connection(url), context)
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        order = list(sides)
        for number in range(rounds + WARM_UP):
            for side in order[number % len(order) :] + order[: number % len(order)]:
                conn, context = sides[side]
                made = usages([names[index % WITH_USAGE] for index in range(BATCH)])
                began = time.perf_counter()
                booking.book(conn, made, context=context)
                if number >= WARM_UP:
                    seconds[side].append(time.perf_counter() - began)
        for conn, _ in sides.values():
            conn.close()
    median = {side: statistics.median(taken) for side, taken in seconds.items()}
    for side, taken in median.items():
        ratio = median["no budgets"] / taken
        print(f"{side}: {taken / BATCH * 1e6:.2f} µs an event, {ratio:.3f} of the rate without budgets")
    verdict = "within" if median["no budgets"] / median["10,000 of others"] >= RATIO_MUST else "BELOW"
    print(f"{rounds} rounds of {BATCH:,} events, {verdict} {RATIO_MUST}")


if __name__ == "__main__":
    main()
