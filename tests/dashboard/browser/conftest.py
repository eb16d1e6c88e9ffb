"""A served dashboard and a real Chromium."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright

from dashboard_factory import make_payment, make_settings, make_usage
from servers import require
from taximeter_cli.receipts import Receipts
from taximeter_dashboard.app import create_app
from taximeter_dashboard.auth.viewers import EVERY_WORKSPACE, OWNER, Keys, Viewer
from taximeter_db import connect
from taximeter_db.budgets import setting as budgets
from taximeter_db.budgets.terms import Terms
from taximeter_db.crypto.master_keys import MasterKeys
from taximeter_db.ledger import booking
from taximeter_db.ledger.events import Payment
from taximeter_db.notices import deliveries, targets
from taximeter_db.prices.changes import set_price
from taximeter_db.prices.store import Price, Target
from waiting import eventually

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EVIL = "<img src=x onerror=alert(1)>"


class Site:
    """A dashboard that listens, and its database."""

    def __init__(self, database_url: str, masters: MasterKeys | None = None, **settings: Any) -> None:
        self.owner_url = database_url
        self.settings = make_settings(database_url, **settings)
        self.app = create_app(self.settings, Receipts(), masters)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(self.app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        eventually(lambda: self._server.started, what="a dashboard that is served")

    def session(self, viewer: Viewer | None = None) -> dict[str, Any]:
        viewer = viewer or Viewer("owner", "Owner", {EVERY_WORKSPACE: OWNER})
        return {"name": "taximeter_session", "value": Keys(self.settings).session(viewer), "url": self.url}

    def beside(self, database_url: str, masters: MasterKeys | None = None) -> Site:
        """Another dashboard with the same secrets, on another database, on another way to it, or with master keys."""
        return Site(database_url, masters)

    def stop(self) -> None:
        self._server.should_exit = True  # streams of pages that are still open are cut
        self._thread.join(10)
        self._socket.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    require("Chromium", CHROMIUM, "install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def site(postgres) -> Iterator[Site]:
    """Workspaces in all states: acme (rich), slim (low), spent (off), turns (off and on), evil (bad texts)."""
    from servers.databases import drop_database, make_database, migrated_template

    name = make_database(postgres, migrated_template(postgres))
    url = postgres.url(name)
    with connect.booking_connection(url) as conn:
        fill(conn)
        fill_notices(conn)
    served = Site(url, dashboard_credit_url="/buy/{workspace}", dashboard_minimum_from="-5")
    yield served
    served.stop()
    drop_database(postgres, name)


def fill_notices(conn: Any) -> None:
    """Two targets of acme, one of them disabled, and notices in every state."""
    rows = [
        targets.add(conn, targets.NewTarget(workspace_id="acme", channel=channel, address=address), None, "Olga")
        for channel, address in (("webhook", "https://hooks.example.com/1"), ("apprise", "slack://A/B/C/#general"))
    ]
    first = targets.get(conn, rows[0].target_id)
    for state in ("delivered", "superseded", "dead", "pending"):
        number = deliveries.send_test(conn, first, "Olga")
        conn.execute(
            """UPDATE taximeter.notice_deliveries SET state = %s, tries = 3,
                      ended_at = CASE WHEN %s <> 'pending' THEN now() END WHERE notice_id = %s""",
            [state, state, number],
        )
        conn.execute(
            """INSERT INTO taximeter.notice_tries (workspace_id, target_id, notice_id, outcome, detail, milliseconds)
               VALUES ('acme', %s, %s, 'failed', 'The receiver answered 503.', 12)""",
            [first.target_id, number],
        )
    conn.execute(
        "UPDATE taximeter.notice_targets SET disabled_at = now(), disabled_why = 'The receiver answered 410.'"
        " WHERE target_id = %s",
        [rows[1].target_id],
    )


def fill(conn: Any) -> None:
    for unit, amount in (("input_tokens", "2.50"), ("output_tokens", "10")):
        set_price(
            conn,
            Price(target=Target(None, "openai", "gpt-4o"), unit=unit, amount=Decimal(amount), per=Decimal(1_000_000)),
        )
    revision = conn.execute("SELECT max(revision) FROM taximeter.price_revisions").fetchone()[0]
    few = {"quantities": {"input_tokens": 1, "output_tokens": 3}, "price_version": revision}
    booking.book(conn, [], [make_payment("acme", "25"), make_payment("acme", "-1.5", kind="adjustment", note=None)])
    booking.book(conn, [make_usage("acme", f"usage-{n}", cost="0.0000325", **few) for n in range(65)])
    pictures = {"tool": "image", "provider": None, "model": None, "quantities": {"images": 1}}
    booking.book(conn, [make_usage("acme", f"picture-{n}", cost="0.04", **pictures) for n in range(3)])
    booking.book(conn, [make_usage("slim", cost="0.03")])
    for terms in (
        Terms("slim", "everything", 2 * 10**10, "month", zone="Europe/Riga"),
        Terms("slim", "a team with a long name of its own", 5 * 10**10, "hours", 24, tool="chat", hard=False),
    ):
        budgets.set_budget(conn, terms)
    booking.book(conn, [make_usage("spent", cost="0.10"), make_usage("spent", cost="0.020000000001")])
    booking.book(conn, [make_usage("edge", cost="0.12")])
    for _ in range(12):
        booking.book(conn, [make_usage("turns", cost="1")])
        booking.book(conn, [], [make_payment("turns", "1")])
    big = b'{"input":"' + b"long " * 120_000 + b'","output":"' + EVIL.encode() + b'"}'
    evil = {"tool": EVIL, "model": EVIL, "payload": b'{"input":"' + EVIL.encode() + b'","metadata":{"a":"</pre>"}}'}
    booking.book(conn, [make_usage("evil", **evil), make_usage("evil", payload=big)])
    booking.book(conn, [], [make_payment("evil", "1", note=EVIL, transaction={"provider": EVIL, "reference": EVIL})])
    booking.book(conn, [], [make_payment("harbor", "5")])
    booking.book(conn, [], [make_payment("live", "1")])
    booking.book(conn, [make_usage("live", cost="0.01")])


@pytest.fixture
def book_at_site(site: Site) -> Callable[..., None]:
    """Book while a page is open."""

    def book(*events: Any) -> None:
        with connect.booking_connection(site.owner_url) as conn:
            for event in events:
                if isinstance(event, Payment):
                    booking.book(conn, [], [event])
                else:
                    booking.book(conn, [event])

    return book


@pytest.fixture
def book_many(site: Site) -> Callable[..., None]:
    """Book usages, and payments before them, in one batch."""

    def book(usages: list[Any], payments: tuple[Any, ...] | list[Any] = ()) -> None:
        with connect.booking_connection(site.owner_url) as conn:
            booking.book(conn, usages, payments)

    return book


@pytest.fixture
def sql(site: Site) -> Callable[[str], list[tuple[Any, ...]]]:
    """Ask the site's database."""

    def ask(query: str) -> list[tuple[Any, ...]]:
        with connect.connection(site.owner_url) as conn:
            return conn.execute(query).fetchall()

    return ask


class Profile:
    """A signed-in browser profile, and what it must not see: console errors and requests to other hosts."""

    def __init__(self, browser: Browser, site: Site, viewer: Viewer | None, options: dict[str, Any]) -> None:
        options = {"viewport": {"width": 1280, "height": 900}, "locale": "en-GB", **options}
        self.context = browser.new_context(**options)
        self.faults: list[str] = []
        self._expected: list[str] = []
        self.context.set_default_timeout(15_000)
        self.context.add_cookies([site.session(viewer)])
        self.context.on("console", lambda message: self._note(message.text) if message.type == "error" else None)
        self.context.on("weberror", lambda error: self._note(str(error.error)))
        self.context.on("request", lambda one: None if one.url.startswith(site.url) else self._note(one.url))

    def _note(self, fault: str) -> None:
        if not any(part in fault for part in self._expected):
            self.faults.append(fault)

    def faults_expected(self, *parts: str) -> None:
        """Let errors pass that contain one of these."""
        self._expected += parts

    def __getattr__(self, name: str) -> Any:
        return getattr(self.context, name)


@pytest.fixture
def new_context(browser: Browser, site: Site) -> Iterator[Callable[..., Profile]]:
    """Factory of signed-in browser profiles that fail the test on console errors and requests to other hosts."""
    made: list[Profile] = []

    def make(*, viewer: Viewer | None = None, at: Site | None = None, **options: Any) -> Profile:
        made.append(Profile(browser, at or site, viewer, options))
        return made[-1]

    yield make
    for profile in made:
        profile.context.close()
    assert [fault for profile in made for fault in profile.faults] == []


@pytest.fixture
def page(new_context) -> Page:
    return new_context().new_page()
