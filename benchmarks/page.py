"""Server time of the page's views in one large workspace: ``python -m benchmarks.page --usages 10000000``.

`benchmarks.generate` writes the usages, spread over sixty days, with a payload each.
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

from benchmarks.generate import Shape, fill, roll_up
from taximeter_cli.embedded.postgres import Postgres
from taximeter_dashboard.app import create_app
from taximeter_dashboard.settings import Settings
from taximeter_dashboard.viewers import EVERY_WORKSPACE, OWNER, Keys, Viewer
from taximeter_db import migrate
from taximeter_db.connect import connection

ROUNDS = 21
WORKSPACE = "large-000000"


def measure(url: str, count: int) -> dict[str, float]:
    """Median milliseconds of each view."""
    settings = Settings(database_url=url, dashboard_secret="s" * 40)
    client = TestClient(create_app(settings))
    client.cookies.set("taximeter_session", Keys(settings).session(Viewer("o", "Owner", {EVERY_WORKSPACE: OWNER})))
    with connection(url) as conn:
        row: Any = conn.execute("SELECT event_id FROM taximeter.usages WHERE seq = %s", [count // 3]).fetchone()
    pages = -(-count // 20)
    views = {
        "usages, page 1": f"/workspaces/{WORKSPACE}",
        "usages, the middle page": f"/workspaces/{WORKSPACE}/usages?page={pages // 2}&upto={count}",
        "usages, the last page": f"/workspaces/{WORKSPACE}/usages?page={pages}&upto={count}",
        "usages, filtered": f"/workspaces/{WORKSPACE}/usages?tool=chat&model=o3",
        "usages, filtered, last": f"/workspaces/{WORKSPACE}/usages?tool=chat&model=o3&end=1",
        "usages, filtered, no match": f"/workspaces/{WORKSPACE}/usages?least=1.00",
        "usage details": f"/workspaces/{WORKSPACE}/usages/{count // 2}",
        "usage by event id": f"/api/v1/workspaces/{WORKSPACE}/usages/{row[0]}",
        "payments": f"/workspaces/{WORKSPACE}/payments",
        "analysis, 30 days": f"/workspaces/{WORKSPACE}/analysis",
        "analysis, 12 months by model": f"/workspaces/{WORKSPACE}/analysis?span=year&by=model",
        "settings": f"/workspaces/{WORKSPACE}/settings",
        "API summary": f"/api/v1/workspaces/{WORKSPACE}/summary",
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
        shape = Shape(usages=count, workspaces=1, prefix="large-", payloads=True)
        fill(server.url(), shape, lambda done: print(f"  {done:,} usages", flush=True))
        roll_up(server.url(), shape)
        for name, median in measure(server.url(), count).items():
            print(f"{name:<34}{median:>8.1f} ms")
    finally:
        server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
