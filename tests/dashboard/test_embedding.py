"""The page inside a host's application, below a prefix, in the host's colours; over a real socket."""

from __future__ import annotations

import json
import re

import httpx2
import pytest
from fastapi import FastAPI

from dashboard_factory import bearer, make_payment, make_settings, make_usage
from servers.pages import serve
from taximeter_dashboard import theme
from taximeter_dashboard.app import create_app
from taximeter_db.errors import ConfigurationError
from taximeter_db.ledger import booking

PREFIX = "/billing"
LOGO = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>'


@pytest.fixture
def host(database_url, tmp_path):
    """A host's FastAPI application with the page below /billing, and a signed-in browser."""
    (tmp_path / "logo.svg").write_bytes(LOGO)
    settings = make_settings(
        database_url,
        dashboard_name="Lighthouse",
        dashboard_home_url="https://lighthouse.example/",
        dashboard_logo=str(tmp_path / "logo.svg"),
        dashboard_accent="#0b5d3b",
        dashboard_header_dark="#203040",
    )
    settings.check()
    page = create_app(settings)
    app = FastAPI()

    @app.get("/")
    def root() -> dict[str, str]:
        return {"this is": "the host"}

    app.mount(PREFIX, page)
    with serve(app) as url, httpx2.Client(base_url=url, timeout=20) as browser:
        path = browser.post(f"{PREFIX}/api/v1/sign-in-links", headers=bearer()).json()["path"]
        answer = browser.get(path)
        assert answer.headers["location"] == f"{PREFIX}/"
        assert f"path={PREFIX};" in answer.headers["set-cookie"].lower() + ";"
        yield browser
    page.state.app_context.close()


def test_every_link_stays_below_the_prefix(host, conn):
    booking.book(conn, [make_usage(cost="0.002") for _ in range(45)])
    booking.book(conn, [], [make_payment()])
    seen: set[str] = set()
    waiting = [f"{PREFIX}/"]
    while waiting:
        path = waiting.pop()
        if path in seen or len(seen) > 60:
            continue
        seen.add(path)
        answer = host.get(path, follow_redirects=True)
        assert answer.status_code == 200, path
        if not answer.headers["content-type"].startswith("text/html"):
            continue
        for kind, written in re.findall(r'\b(href|src|action|hx-get|data-events|data-exports)="([^"]*)"', answer.text):
            target = written.replace("&amp;", "&")
            if target.startswith(("#", "https://lighthouse.example/")):
                continue
            assert target.startswith((f"{PREFIX}/", "?")), (path, target)
            if (
                kind in {"href", "src"}
                and "/export." not in target
                and "usages/" not in target
                and "zone?" not in target
            ):
                waiting.append(target)
    assert {f"{PREFIX}/workspaces/acme/{tab}" for tab in ("usages", "payments", "analysis", "settings")} <= seen
    assert any(path.startswith(f"{PREFIX}/static/app.css") for path in seen)


def test_writes_redirects_and_refusals_know_the_prefix(host, conn):
    booking.book(conn, [make_usage()])
    ours, theirs = {"origin": str(host.base_url).rstrip("/")}, {"origin": "https://evil.example"}
    url = f"{PREFIX}/workspaces/acme/settings"
    assert host.post(url, data={"low": "1"}, headers=theirs).status_code == 403
    assert host.post(url, data={"low": "1"}, headers=ours).headers["location"] == f"{url}?saved=1"
    assert host.get(f"{PREFIX}/zone?to=Europe/Riga").headers["location"] == f"{PREFIX}/"
    absent = host.get(f"{PREFIX}/api/v1/workspaces/none/summary")
    assert (absent.status_code, absent.headers["content-type"]) == (404, "application/problem+json")
    assert "Sign in" in host.get(f"{PREFIX}/workspaces/acme", headers={"cookie": "x=y"}).text
    assert host.post(f"{PREFIX}/sign-out", headers=ours).headers["location"] == f"{PREFIX}/signed-out"
    assert host.get(f"{PREFIX}/signed-out").status_code == 200
    assert host.get(f"{PREFIX}/workspaces/acme").status_code == 401
    assert host.get("/").json() == {"this is": "the host"}


def test_live_updates_and_exports_stream_below_the_prefix(host, conn):
    booking.book(conn, [make_usage(cost="0.002") for _ in range(3)])
    with host.stream("GET", f"{PREFIX}/workspaces/acme/events") as stream:
        data = next(line for line in stream.iter_lines() if line.startswith("data: "))
    state = json.loads(data.removeprefix("data: "))
    assert state["usages"] == 3
    assert not re.search(r'(href|src|action)="/(?!billing/)', state["card"])
    assert len(host.get(f"{PREFIX}/workspaces/acme/export.csv").text.splitlines()) == 4
    document = host.get(f"{PREFIX}/openapi.json").json()
    assert document["servers"] == [{"url": PREFIX}]


def test_the_hosts_name_colours_and_logo(host, conn):
    booking.book(conn, [make_usage()])
    text = host.get(f"{PREFIX}/workspaces/acme").text
    assert '<a href="https://lighthouse.example/">Lighthouse</a>' in text
    sheet = re.search(rf'href="({PREFIX}/static/theme\.css\?v=[0-9a-f]+)"', text).group(1)
    answer = host.get(sheet)
    assert answer.headers["content-type"].startswith("text/css")
    assert "--accent: #0b5d3b" in answer.text
    logo = host.get(re.search(rf'src="({PREFIX}/static/logo\?v=[0-9a-f]+)"', text).group(1))
    assert logo.content == LOGO
    assert "default-src 'none'" in logo.headers["content-security-policy"]  # a script in it does not run


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dashboard_accent": "red"}, "DASHBOARD_ACCENT"),
        ({"dashboard_accent": "#fff; } body { display: none"}, "DASHBOARD_ACCENT"),
        ({"dashboard_accent": "#9fb2ff"}, "contrast of"),
        ({"dashboard_accent_dark": "#2b46c8"}, "contrast of"),
        ({"dashboard_header": "#12345"}, "DASHBOARD_HEADER"),
        ({"dashboard_logo": "/nowhere/logo.svg"}, "DASHBOARD_LOGO"),
        ({"dashboard_logo": __file__}, "DASHBOARD_LOGO"),
    ],
)
def test_colours_that_cannot_be_read_are_refused(changes, says):
    with pytest.raises(ConfigurationError, match=says):
        make_settings("postgresql://x", **changes).check()


def test_contrast_is_that_of_wcag():
    assert round(theme.contrast("#000000", "#ffffff"), 2) == 21.0
    assert round(theme.contrast("#777777", "#ffffff"), 2) == 4.48
    assert theme.contrast("#2b46c8", "#f0f0ed") > 4.5


def test_text_on_any_header_can_be_read():
    for red in range(0, 256, 15):
        for green in range(0, 256, 15):
            color = f"#{red:02x}{green:02x}80"
            assert theme.contrast(theme.header_text(color), color) >= 4.5
