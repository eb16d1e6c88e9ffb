"""Pictures of the page in every state, into docs/images/: ``make images``, or ``python -m benchmarks.pictures [NAME …]``.

A page with the demonstration's past, in Chromium, light and dark, wide and on a phone. The PNGs have 256 colours.
"""

from __future__ import annotations

import argparse
import datetime as dt
import random
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from taximeter_cli.demo import traffic
from taximeter_cli.demo.history import Past
from taximeter_cli.embedded.postgres import Postgres
from taximeter_cli.receipts import Receipts
from taximeter_dashboard.app import create_app
from taximeter_dashboard.auth.viewers import EVERY_WORKSPACE, OWNER, Keys, Viewer
from taximeter_dashboard.settings import Settings
from taximeter_db import connect, migrate, workspaces
from taximeter_db.ledger.events import Policy
from taximeter_worker.pricing.loading import load_book, seed

IMAGES = Path(__file__).parents[1] / "docs" / "images"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ZONE = "Europe/Riga"
COLORS = 256


class Shot(NamedTuple):
    """A picture: its name, the address below /workspaces/, how wide, which scheme, and what is done before."""

    name: str
    path: str
    width: int = 1280
    scheme: str = "light"
    act: str = ""
    height: int = 860


WIDE = [
    ("usages-filtered", "harbor-books/usages?tool=chat&model=gpt-4o"),
    ("usages-no-match", "harbor-books/usages?tool=chat&least=1.00"),
    ("payments", "pocket-studio/payments"),
    ("analysis", "lumen-labs/analysis"),
    ("analysis-by-model", "lumen-labs/analysis?span=day&by=model"),
    ("balance-history", "pocket-studio/analysis"),
    ("settings", "harbor-books/settings"),
    ("new-workspace", "quiet-harbor"),
    ("low", "little-press"),
    ("insufficient", "night-garden"),
]


class Site:
    """A dashboard that listens, for as long as the process lives."""

    def __init__(self, url: str) -> None:
        self.settings = Settings(
            database_url=url,
            dashboard_secret="s" * 40,
            dashboard_credit_url="https://example.com/credit/{workspace}",
            dashboard_minimum_from="-5",
        )
        self.lose_database: Callable[[], object] = int
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(create_app(self.settings, Receipts()), log_level="warning", access_log=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def cookies(self) -> list[Any]:
        viewer = Viewer("owner", "Owner", {EVERY_WORKSPACE: OWNER})
        return [
            {"name": "taximeter_session", "value": Keys(self.settings).session(viewer), "url": self.url},
            {"name": "taximeter_zone", "value": ZONE.replace("/", "%2F"), "url": self.url},
        ]

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)


@contextmanager
def running_site() -> Iterator[Site]:
    """A page with the demonstration's past."""
    folder = Path(tempfile.mkdtemp(prefix="tx-pictures-", dir="/tmp"))
    folder.chmod(0o711)
    server = Postgres(folder / "postgres", settings={"fsync": "off"})
    try:
        server.start()
        migrate.upgrade(server.url())
        with connect.connection(server.url()) as conn:
            seed(conn)
        traffic.price_pictures(server.url())
        with connect.booking_connection(server.url()) as conn:
            traffic.past(conn, Policy(), dt.datetime.now(dt.UTC))
            workspaces.set_limits(conn, "quiet-harbor")
            run_down(conn, "little-press", "low")
            run_down(conn, "night-garden", "insufficient")
        site = Site(server.url())
        site.lose_database = lambda: server.stop("immediate")
        yield site
        site.stop()
    finally:
        server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


def run_down(conn: Any, workspace: str, status: str) -> None:
    """Give a workspace a little credit and let it use that up, until its status is the one asked for."""
    past = Past(conn, load_book(conn), traffic.anything, Policy(), random.Random(3))
    moment = dt.datetime.now(dt.UTC)
    past.pay(moment, workspace, "0.25", "five of them for a start")
    while past.states[workspace].status != status:
        past.use(moment, [workspace])


def shots() -> list[Shot]:
    """All of them; the last ones are taken without a database."""
    made = [Shot(f"{name}-{scheme}", path, scheme=scheme) for name, path in WIDE for scheme in ("light", "dark")]
    made += [Shot(f"details-{scheme}", "harbor-books", scheme=scheme, act="details") for scheme in ("light", "dark")]
    made += [Shot(f"ai-tracking-{scheme}", "harbor-books", scheme=scheme) for scheme in ("light", "dark")]
    phone = [("usages", "harbor-books", ""), ("details", "harbor-books", "details"), ("low", "little-press", "")]
    phone += [("analysis", "lumen-labs/analysis", ""), ("settings", "harbor-books/settings", "")]
    made += [Shot(f"phone-{name}-light", path, 390, act=act) for name, path, act in phone]
    made += [Shot(f"phone-{name}-dark", path, 390, "dark", act) for name, path, act in phone[:2]]
    return [*made, Shot("error-light", "harbor-books", act="error")]


def take(browser: Browser, site: Site, shot: Shot, folder: Path) -> Path:
    """One picture."""
    context = browser.new_context(
        viewport={"width": shot.width, "height": shot.height if shot.width > 700 else 844},
        color_scheme=shot.scheme,  # type: ignore[arg-type]
        timezone_id=ZONE,
        locale="en-GB",
        device_scale_factor=1 if shot.width > 700 else 1.5,
    )
    context.add_cookies(site.cookies())
    page = context.new_page()
    page.goto(f"{site.url}/workspaces/{shot.path}")
    page.locator("#live[data-state=live]").wait_for(state="attached")
    act(page, site, shot.act)
    path = folder / f"{shot.name}.png"
    page.screenshot(path=path, full_page="analysis" in shot.path, animations="disabled")
    context.close()
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(COLORS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    return path


def act(page: Page, site: Site, what: str) -> None:
    """What is done before the picture is taken."""
    if what == "error":
        page.locator("#live").click()
        site.lose_database()
        page.locator("#tab-payments").click()
        page.locator("#retry").wait_for()
    if what == "details":
        page.locator("tbody a[data-details]").first.click()
        page.locator("#details-title").wait_for()
        page.wait_for_timeout(200)


def main() -> None:
    """Take them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pictures", description=__doc__)
    parser.add_argument("names", nargs="*", help="beginnings of names; all of them otherwise")
    parser.add_argument("--to", type=Path, default=IMAGES)
    arguments = parser.parse_args()
    arguments.to.mkdir(parents=True, exist_ok=True)
    with running_site() as site, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for shot in shots():
            if not arguments.names or shot.name.startswith(tuple(arguments.names)):
                path = take(browser, site, shot, arguments.to)
                print(f"{path.name:<36}{path.stat().st_size / 1000:>8.0f} KB", flush=True)
        browser.close()


if __name__ == "__main__":
    main()
