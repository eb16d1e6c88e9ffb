"""Server time of every view in one large workspace, and an export of all of it.

    python -m benchmarks.page --usages 10000000

Generates the ledger (about 600 bytes of disk a usage; ten million take some minutes) in a PostgreSQL of its own, or measures an
existing one: ``--url``. Each view is asked 21 times in this process, without a network: the median wall-clock time, and
the CPU time of page and PostgreSQL together, which other load on the machine does not touch. The exports are downloaded from
a server process of its own, whose memory is watched.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import psutil
from starlette.testclient import TestClient

from benchmarks import generate
from taximeter_cli.embedded.postgres import Postgres
from taximeter_cli.embedded.process import free_port
from taximeter_cli.receipts import Receipts
from taximeter_dashboard.app import create_app
from taximeter_dashboard.auth.viewers import EVERY_WORKSPACE, OWNER, Keys, Viewer
from taximeter_dashboard.settings import Settings
from taximeter_db import migrate
from taximeter_db.connect import connection

ROUNDS = 21
SECRET = "secret of the benchmark, and of nothing else"
SHAPE = generate.Shape(usages=0, workspaces=1, days=60.0, payloads=True, users=2_000, teams=20)
WORKSPACE = SHAPE.workspace_id(0)


def views(url: str, count: int) -> dict[str, str]:
    """The address of each view."""
    with connection(url) as conn:
        row: Any = conn.execute(
            "SELECT event_id, (recorded_at - interval '2 days')::date, recorded_at::date FROM taximeter.usages"
            " WHERE workspace_id = %s AND seq = %s",
            [WORKSPACE, count // 2],
        ).fetchone()
    event_id, since, until = row
    page, pages = f"/workspaces/{WORKSPACE}", -(-count // 20)
    api = f"/api/v1{page}"
    return {
        "usages, page 1": page,
        f"usages, page {pages // 2:,}": f"{page}/usages?page={pages // 2}&upto={count}",
        f"usages, page {pages:,}": f"{page}/usages?page={pages}&upto={count}",
        "filtered by tool and model": f"{page}/usages?tool=chat&model=o3",
        "filtered, last page": f"{page}/usages?tool=chat&model=o3&end=1",
        "filtered by period and cost": f"{page}/usages?least=0.01&since={since}&until={until}",
        "filtered by user": f"{page}/usages?user=u-17",
        "filtered by tag, last page": f"{page}/usages?tag=team%3Dt-7&end=1",
        "filtered, no match": f"{page}/usages?least=1.00",
        "id starts with 8 characters": f"{page}/usages?id={event_id[:8]}",
        "id starts with 16 characters": f"{page}/usages?id={event_id[:16]}",
        "id starts with, no match": f"{page}/usages?id=zzzz",
        "usage details": f"{page}/usages/{count // 2}",
        "payments": f"{page}/payments",
        "analysis, 24 hours": f"{page}/analysis?span=day",
        "analysis, 30 days": f"{page}/analysis",
        "analysis, 12 months by model": f"{page}/analysis?span=year&by=model",
        **{
            f"analysis, {words} by {name}": f"{page}/analysis?span={span}&{by}"
            for span, words in (("day", "24 hours"), ("month", "30 days"), ("year", "12 months"))
            for name, by in (("user", "by=user"), ("tag", "by=tag&tag=team"))
        },
        "settings": f"{page}/settings",
        "workspaces": "/",
        "API summary": f"{api}/summary",
        "API usages": f"{api}/usages?limit=100",
        "API usage by event id": f"{api}/usages/{event_id}",
        "API analysis": f"{api}/analysis",
        "API analysis by user": f"{api}/analysis?by=user",
        "API status changes": f"{api}/status-changes",
    }


def database_cpu(conn: Any) -> float:
    """Seconds of CPU that the page's own connections have used."""
    found = conn.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'taximeter dashboard'")
    seconds = 0.0
    for (pid,) in found.fetchall():
        spent = psutil.Process(pid).cpu_times()
        seconds += spent.user + spent.system
    return seconds


def measure(url: str, count: int) -> None:
    """Print the median milliseconds of each view, and its CPU."""
    settings = Settings(database_url=url, dashboard_secret=SECRET)
    app = create_app(settings, Receipts())
    client = TestClient(app, follow_redirects=False)
    client.cookies.set("taximeter_session", Keys(settings).session(Viewer("o", "Owner", {EVERY_WORKSPACE: OWNER})))
    print(f"{'':34}{'median':>11}{'least':>11}{'CPU: page':>12}{'PostgreSQL':>12}")
    with connection(url) as conn:
        for name, path in views(url, count).items():
            client.get(path)
            taken = []
            begun_cpu, begun_database = time.process_time(), database_cpu(conn)
            for _ in range(ROUNDS):
                begun = time.perf_counter()
                answer = client.get(path)
                taken.append((time.perf_counter() - begun) * 1000)
                if answer.status_code != 200:
                    raise SystemExit(f"{path}: {answer.status_code}")
            page = (time.process_time() - begun_cpu) * 1000 / ROUNDS
            database = (database_cpu(conn) - begun_database) * 1000 / ROUNDS
            print(
                f"{name:<34}{statistics.median(taken):>8.1f} ms{min(taken):>8.1f} ms{page:>9.1f} ms{database:>9.1f} ms",
                flush=True,
            )
    app.state.app_context.close()


@contextmanager
def served(url: str) -> Iterator[tuple[str, psutil.Process]]:
    """The page in a process of its own."""
    port = free_port()
    environment = {"TAXIMETER_DATABASE_URL": url, "TAXIMETER_DASHBOARD_SECRET": SECRET}
    process = subprocess.Popen(
        [sys.executable, "-m", "taximeter_cli.entry", "dashboard", "--port", str(port)], env=environment
    )
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                httpx2.get(f"{address}/signed-out", timeout=1)
                break
            except httpx2.HTTPError:
                time.sleep(0.2)
        yield address, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


def export(url: str, count: int) -> None:
    """Download everything in both formats; print rate, size, and the memory of the server."""
    settings = Settings(database_url=url, dashboard_secret=SECRET)
    cookie = Keys(settings).session(Viewer("o", "Owner", {EVERY_WORKSPACE: OWNER}))
    with served(url) as (address, process):
        for kind in ("csv", "parquet"):
            begun, size, lines, peak = time.monotonic(), 0, 0, [process.memory_info().rss]
            before, spent = peak[0], process.cpu_times()
            done = threading.Event()

            def watch(peak: list[int] = peak, done: threading.Event = done) -> None:
                while not done.wait(0.2):
                    peak[0] = max(peak[0], process.memory_info().rss)

            watcher = threading.Thread(target=watch)
            watcher.start()
            path = f"{address}/workspaces/{WORKSPACE}/export.{kind}"
            headers = {"cookie": f"taximeter_session={cookie}", "accept-encoding": "identity"}
            with httpx2.stream("GET", path, headers=headers, timeout=60) as answer:
                for part in answer.iter_raw():
                    size += len(part)
                    lines += part.count(b"\n")
            done.set()
            watcher.join()
            if kind == "csv" and lines != count + 1:
                raise SystemExit(f"{lines:,} lines for {count:,} usages")
            taken, now = time.monotonic() - begun, process.cpu_times()
            print(
                f"export as {kind}: {count:,} rows, {size / 1e9:.2f} GB in {taken:.0f} s; the server's memory"
                f" {before / 1e6:.0f} MB before, {peak[0] / 1e6:.0f} MB at most;"
                f" its CPU {now.user + now.system - spent.user - spent.system:.0f} s",
                flush=True,
            )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.page", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--usages", type=int, default=1_000_000)
    parser.add_argument(
        "--url",
        help="measure this ledger, which generate made with --workspaces 1 --payloads --users 2000 --teams 20 --rollups",
    )
    parser.add_argument("--no-export", action="store_true")
    given = parser.parse_args()
    if given.url:
        run(given.url, given.usages, export_too=not given.no_export)
        return
    folder = Path(tempfile.mkdtemp(prefix="tx-page-", dir="/tmp"))
    folder.chmod(0o711)
    server = Postgres(folder / "postgres", settings={"fsync": "off", "max_wal_size": "4GB", "shared_buffers": "512MB"})
    try:
        server.start()
        migrate.upgrade(server.url())
        shape = msgspec.structs.replace(SHAPE, usages=given.usages)
        generate.fill(server.url(), shape, lambda done: print(f"  {done:,} usages", flush=True))
        generate.roll_up(server.url(), shape)
        run(server.url(), given.usages, export_too=not given.no_export)
    finally:
        server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


def run(url: str, count: int, *, export_too: bool) -> None:
    """Measure views and exports of a ledger."""
    print(f"{count:,} usages in {WORKSPACE} at {re.sub(r'//.*@', '//', url)}")
    measure(url, count)
    if export_too:
        export(url, count)


if __name__ == "__main__":
    main()
