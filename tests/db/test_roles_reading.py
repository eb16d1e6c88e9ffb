"""Under row-level security a page reads no more rows than it shows: no statement falls back to reading a whole log.

PostgreSQL may use only leakproof comparisons ahead of a policy; one that is not turns an index look-up into a scan.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from taximeter_db import connect, status_changes
from taximeter_db.ledger import rollups
from taximeter_db.queries import filtered, history, pace, payments, scope, spending, summary, usages
from taximeter_db.queries import payloads as contents

COUNT = 30_000
_FILL = f"""
INSERT INTO taximeter.workspaces (workspace_id, usage_count, usage_cost, balance)
SELECT name, {COUNT}, {COUNT}, -{COUNT} FROM unnest(ARRAY['acme', 'other']) AS name;
INSERT INTO taximeter.usages (seq, entry, price_version, occurred_at, recorded_at, cost, balance_after, workspace_id,
                              event_id, tool, provider, model, quantities)
SELECT n, n, 1, now() + n * interval '1 second', now() + n * interval '1 second', 1, -n, name, 'event-' || n, 'chat',
       'p', 'm', '{{}}' FROM generate_series(1, {COUNT}) AS n, unnest(ARRAY['acme', 'other']) AS name;
INSERT INTO taximeter.status_changes (workspace_id, changed_at, status_before, status_after, balance_after,
                                      minimum_balance, low_balance_threshold, entry, cause, cause_seq, cause_id)
VALUES ('acme', now(), 'low', 'insufficient', -1, -0.12, 0, 1, 'usage', 1, 'event-1');
INSERT INTO taximeter.usage_payloads SELECT seq, recorded_at, 0, workspace_id, 'x' FROM taximeter.usages;
INSERT INTO taximeter.usage_keys VALUES (%(key)s, 'acme', %(key)s, now() + interval '20000 seconds');
"""
_READ = """
SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::bigint FROM pg_stat_xact_user_tables
WHERE schemaname = 'taximeter' AND (relname LIKE 'usages_p%' OR relname LIKE 'usage_payloads_p%')
"""


@pytest.fixture
def filled(conn, database_url: str) -> Any:
    import uuid

    from taximeter_db.ledger.events import event_key

    with conn.transaction():
        for statement in _FILL.split(";\n"):
            if statement.strip():
                conn.execute(statement, {"key": uuid.UUID(bytes=event_key("event-20001"))})
    conn.execute("ANALYZE taximeter.usages, taximeter.usage_payloads, taximeter.usage_keys, taximeter.workspaces")
    while rollups.advance(conn, "acme", 10_000)[0] < COUNT:
        pass
    conn.execute("ANALYZE taximeter.usage_rollups")
    return conn


def test_no_reader_falls_back_to_the_whole_log(filled, role_url: Callable[[str], str]):
    middle = filled.execute(
        "SELECT recorded_at FROM taximeter.usages WHERE workspace_id = 'acme' AND seq = 20000"
    ).fetchone()[0]
    with connect.connection(role_url("dashboard")) as mine:
        now = dt.datetime.now(dt.UTC)
        found = summary.Summary("acme", usage_count=COUNT, usage_cost=COUNT, balance=-COUNT * 10**12, known=True)
        wanted = filtered.Filter(tool="chat", since=now, cost_min=min(filtered.LEAST))

        edges = [middle.replace(minute=0, second=0, microsecond=0) + n * dt.timedelta(minutes=15) for n in range(5)]

        readers: dict[str, tuple[Callable[[], Any], int]] = {
            "a page": (lambda: usages.between(mine, "acme", 12_001, 12_020), 40),
            "some": (lambda: usages.pick(mine, "acme", [5, 15_000, COUNT]), 10),
            "payloads": (lambda: contents.payloads(mine, "acme", usages.between(mine, "acme", 7, 9), 10), 20),
            "by time": (lambda: usages.seq_at(mine, "acme", middle), 100),
            "since": (lambda: pace.spent_since(mine, found, middle), 100),
            "off": (lambda: status_changes.switched_off_by(mine, "acme"), 10),
            "by id": (lambda: usages.find(mine, "acme", "event-20001"), 5_200),
            "filtered": (lambda: filtered.matches(mine, "acme", wanted), 2_000),
            "payments": (lambda: payments.between(mine, "acme", 1, 20), 5),
            "rollups": (
                lambda: spending.spending(mine, "acme", spending.Span(now, middle, "day", "UTC"), by="tool"),
                5,
            ),
            "balances": (lambda: history.balances(mine, "acme", edges[0], edges[1:]), len(edges)),
        }
        for name, (read, rows_max) in readers.items():
            with mine.transaction():
                scope.enter(mine, "acme")
                before = mine.execute(_READ).fetchone()[0]  # what is not reported yet of earlier transactions
                read()
                count = mine.execute(_READ).fetchone()[0] - before
            assert count <= rows_max, f"{name}: {count} rows"
        with mine.transaction():
            scope.enter(mine, "acme")
            assert usages.find(mine, "acme", "event-20001").seq == 20_001
            assert usages.seq_at(mine, "acme", middle) == 20_000
            assert len(filtered.matches(mine, "acme", wanted)) == 21
