"""Server time of the page's views in one large workspace: ``python -m benchmarks.page --usages 10000000``.

The usages are written by SQL, as booking would leave them: running balance, gapless numbers, keys, a payload each.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from taximeter_cli.embedded.postgres import Postgres
from taximeter_dashboard.app import create_app
from taximeter_dashboard.settings import Settings
from taximeter_dashboard.viewers import EVERY_WORKSPACE, OWNER, Keys, Viewer
from taximeter_db import migrate, rollups
from taximeter_db.connect import connection

ROUNDS = 21
RUN = 500_000
# Spread from the start of the month to now: the partitions that exist.
FILL = """
WITH made AS (
    SELECT n AS seq, md5(n::text)::uuid AS key,
           date_trunc('month', now()) + (now() - date_trunc('month', now())) * (n / %(all)s::float8) AS at
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
), keys AS (
    INSERT INTO taximeter.usage_keys (event_key, workspace_id, fingerprint, booked_at)
    SELECT overlay(overlay(key::text placing '4' from 15) placing 'a' from 20)::uuid, 'large', key, at FROM made
), payloads AS (
    INSERT INTO taximeter.usage_payloads (seq, recorded_at, codec, workspace_id, payload)
    SELECT seq, at, 0, 'large',
           convert_to('{"input":"question ' || seq || '","output":"answer ' || seq || '"}', 'UTF8') FROM made
)
INSERT INTO taximeter.usages
SELECT seq, seq + 1, 1, at, at, 0.00003, 1000 - seq * 0.00003, 'large',
       overlay(overlay(key::text placing '4' from 15) placing 'a' from 20),
       (ARRAY['chat', 'search', 'summaries', 'images'])[1 + seq %% 4], 'openai',
       (ARRAY['gpt-4o', 'gpt-4o-mini', 'o3'])[1 + seq %% 3], '{"input_tokens": 12}'
FROM made
"""
WORKSPACE = """
INSERT INTO taximeter.workspaces (workspace_id, balance, usage_cost, payment_total, usage_count, payment_count)
VALUES ('large', 1000 - %(all)s * 0.00003, %(all)s * 0.00003, 1000, %(all)s, 1);
"""
PAYMENT = """
INSERT INTO taximeter.payments (workspace_id, payment_id, seq, entry, kind, amount, balance_after, fingerprint,
                                occurred_at, recorded_at)
VALUES ('large', 'first', 1, 1, 'top_up', 1000, 1000, md5('')::uuid, date_trunc('month', now()),
        date_trunc('month', now()))
"""


def fill(url: str, count: int) -> None:
    """Write the usages and roll them up."""
    with connection(url) as conn:
        conn.execute(WORKSPACE, {"all": count})
        conn.execute(PAYMENT)
        for first in range(1, count + 1, RUN):
            conn.execute(FILL, {"all": count, "first": first, "last": min(count, first + RUN - 1)})
            print(f"  {min(count, first + RUN - 1):,} usages", flush=True)
        conn.execute("ANALYZE")
        while rollups.behind(conn):
            rollups.advance(conn, "large")


def measure(url: str, count: int) -> dict[str, float]:
    """Median milliseconds of each view."""
    settings = Settings(database_url=url, dashboard_secret="s" * 40)
    client = TestClient(create_app(settings))
    client.cookies.set("taximeter_session", Keys(settings).session(Viewer("o", "Owner", {EVERY_WORKSPACE: OWNER})))
    with connection(url) as conn:
        row: Any = conn.execute("SELECT event_id FROM taximeter.usages WHERE seq = %s", [count // 3]).fetchone()
    pages = -(-count // 20)
    views = {
        "usages, page 1": "/workspaces/large",
        "usages, the middle page": f"/workspaces/large/usages?page={pages // 2}&upto={count}",
        "usages, the last page": f"/workspaces/large/usages?page={pages}&upto={count}",
        "usages, filtered": "/workspaces/large/usages?tool=chat&model=o3",
        "usages, filtered, last": "/workspaces/large/usages?tool=chat&model=o3&end=1",
        "usages, filtered, no match": "/workspaces/large/usages?least=1.00",
        "usage details": f"/workspaces/large/usages/{count // 2}",
        "usage by event id": f"/api/v1/workspaces/large/usages/{row[0]}",
        "payments": "/workspaces/large/payments",
        "analysis, 30 days": "/workspaces/large/analysis",
        "analysis, 12 months by model": "/workspaces/large/analysis?span=year&by=model",
        "settings": "/workspaces/large/settings",
        "API summary": "/api/v1/workspaces/large/summary",
    }
    medians = {}
    for name, path in views.items():
        taken = []
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            answer = client.get(path)
            taken.append((time.perf_counter() - begun) * 1000)
            if answer.status_code != 200:
                raise SystemExit(f"{path}: {answer.status_code}")
        medians[name] = statistics.median(taken)
    return medians


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--usages", type=int, default=1_000_000)
    count = parser.parse_args().usages
    folder = Path(tempfile.mkdtemp(prefix="tx-page-", dir="/tmp"))
    folder.chmod(0o711)
    server = Postgres(folder / "postgres", settings={"fsync": "off", "max_wal_size": "4GB"})
    try:
        server.start()
        migrate.upgrade(server.url())
        fill(server.url(), count)
        for name, median in measure(server.url(), count).items():
            print(f"{name:<34}{median:>8.1f} ms")
    finally:
        server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
