"""How fast the page appears in Chromium: ``python -m benchmarks.first_view``.

Largest contentful paint, first byte, requests, bytes and nodes of the usages tab with the demonstration's past: on loopback,
and at 1.6 Mbit/s with 150 ms of delay and a fourth of the CPU. Medians of nine fresh profiles each.
"""

from __future__ import annotations

import statistics
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from benchmarks.pictures import CHROMIUM, Site, running_site

ROUNDS = 9
SLOW = {"offline": False, "latency": 150, "downloadThroughput": 200_000, "uploadThroughput": 200_000}
MEASURE = """() => new Promise((done) => {
    let lcp = 0;
    new PerformanceObserver((list) => { for (const one of list.getEntries()) lcp = one.startTime; })
        .observe({ type: "largest-contentful-paint", buffered: true });
    setTimeout(() => {
        const first = performance.getEntriesByType("navigation")[0];
        done({ lcp, first_byte: first.responseStart - first.requestStart, nodes: document.querySelectorAll("*").length });
    }, 1500);
})"""


def measure(browser: Browser, site: Site, path: str, *, slow: bool) -> dict[str, float]:
    """One look with an empty cache."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.add_cookies(site.cookies())
    page = context.new_page()
    seen: list[Any] = []
    page.on("requestfinished", lambda one: seen.append(one))  # noqa: PLW0108 - playwright cannot mark a builtin
    if slow:
        devtools = context.new_cdp_session(page)
        devtools.send("Network.enable")
        devtools.send("Network.emulateNetworkConditions", SLOW)
        devtools.send("Emulation.setCPUThrottlingRate", {"rate": 4})
    page.goto(f"{site.url}/workspaces/{path}")
    found: dict[str, float] = page.evaluate(MEASURE)
    found["requests"] = len(seen)
    found["bytes"] = sum(one.sizes()["responseBodySize"] for one in seen)
    context.close()
    return found


def main() -> None:
    """Measure and print."""
    with running_site() as site, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        print(f"{'':<28}{'LCP, ms':>10}{'first byte':>12}{'requests':>10}{'bytes':>10}{'nodes':>8}")
        for path in ("harbor-books", "harbor-books/usages?page=60&upto=2000", "lumen-labs/analysis"):
            for slow in (False, True):
                rounds = [measure(browser, site, path, slow=slow) for _ in range(ROUNDS)]
                middle = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
                title = f"{path.partition('?')[0]}{', slow' if slow else ''}"
                print(
                    f"{title:<28}{middle['lcp']:>10.0f}{middle['first_byte']:>12.0f}{middle['requests']:>10.0f}"
                    f"{middle['bytes']:>10,.0f}{middle['nodes']:>8,.0f}",
                    flush=True,
                )
        browser.close()


if __name__ == "__main__":
    main()
