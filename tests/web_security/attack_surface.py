"""What the dashboard answers to, read from the application itself, and what is thrown at it."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from fastapi import FastAPI

HOST = "http://dash.example"
OURS, THEIRS = "acme", "other"
SECRET = "theirs-alone-4711"
"""Stands in everything that the other workspace has, and may stand in no answer to us."""


@dataclass(frozen=True, order=True)
class Route:
    """One address of the application with what it takes."""

    method: str
    path: str
    query: tuple[str, ...] = ()
    form: tuple[str, ...] = ()

    @property
    def of_a_workspace(self) -> bool:
        return "{workspace_id}" in self.path

    @property
    def streams(self) -> bool:
        return self.path.endswith("/events")

    def at(
        self, workspace: str = OURS, *, seq: str = "1", event: str = "mine", name: str = "app.css", code: str = "x"
    ) -> str:
        """The address with its places filled."""
        filled = (
            self.path.replace("{kind}", "csv")
            .replace("{ticket}", "absent")
            .replace("{month}", f"{dt.datetime.now(dt.UTC):%Y-%m}")
            .replace("{workspace_id}", workspace)
            .replace("{seq}", seq)
            .replace("{name}", name)
            .replace("{name:path}", name)
        )
        return filled.replace("{event_id:path}", event).replace("{event_id}", event).replace("{code}", code)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def routes(app: FastAPI) -> list[Route]:
    """Every route there is; a method of its own for each."""
    found = []
    for route in _flat(app.routes):
        dependants = list(_walk(route.dependant)) if hasattr(route, "dependant") else []
        query = tuple(one.alias for dependant in dependants for one in dependant.query_params)
        form = tuple(one.alias for dependant in dependants for one in dependant.body_params)
        found += [Route(method, route.path, query, form) for method in sorted(route.methods - {"HEAD"})]
    return sorted(set(found))


def _flat(some: Any) -> Iterator[Any]:
    for route in some:
        router = getattr(route, "original_router", None)
        if router is not None:
            yield from _flat(router.routes)
        else:
            yield route


def _walk(dependant: Any) -> Iterator[Any]:
    yield dependant
    for inner in dependant.dependencies:
        yield from _walk(inner)


PAYLOADS = {
    "SQL quote": "'",
    "SQL or": "' OR '1'='1' --",
    "SQL double quote": '" OR ""="',
    "SQL stacked": "'; DROP TABLE taximeter.usages; --",
    "SQL union": f"' UNION SELECT workspace_id FROM taximeter.workspaces WHERE workspace_id='{THEIRS}",
    "SQL wildcard": "%",
    "SQL cast": "1::text||(SELECT version())",
    "SQL placeholder": "%s %(x)s $1 {0} :x",
    "SQL backslash": "\\'; --",
    "template braces": "{{97813*89071}}",
    "template block": "{% raw %}{{97813*89071}}{% for x in ().__class__.__mro__ %}",
    "template dollar": "${97813*89071}#{97813*89071}<%= 97813*89071 %>",
    "log line": "x\nERROR forged entry",
    "log return": "x\r\nHTTP/1.1 200 OK\r\nset-cookie: forged=1\r\n\r\n",
    "log escape": "\x1b[31mred\x1b]0;title\x07",
    "format": "%n%n%s{0.__class__}",
    "NUL": "a\x00b",
    "path": "../../../../etc/passwd",
    "path, encoded": "..%2f..%2f..%2fetc%2fpasswd",
    "markup": "<script>alert(1)</script>",
    "attribute": "\" onmouseover='alert(1)' x=\"",
    "script address": "javascript:alert(1)",
    "bidi": "\u202etxt.exe\u2066",
    "unpaired": "\udce9",
    "huge": "9" * 500,
    "negative": "-1",
    "float": "1e9",
    "NaN": "NaN",
    "array": "[]",
    "empty": "",
    "very long": "x" * 6_000,
}


def quoted(text: str) -> str:
    return quote(text, safe="", errors="surrogateescape")


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in {"iframe", "object", "embed", "base", "applet"}:
            self.faults.append(f"<{tag}>")
        if tag == "script" and not re.match(r"(/\w+)*/static/", given.get("src") or ""):
            self.faults.append("a script of its own")
        if tag == "img" and given.get("src") == "x":
            self.faults.append("a stored picture")
        for name, value in attrs:
            if re.match(r"on|hx-on|srcdoc|formaction", name):
                self.faults.append(f"{name}={value}")
            if name in {"href", "src", "action", "data", "poster"} and (value or "").strip().lower().startswith(
                ("javascript:", "data:text", "vbscript:")
            ):
                self.faults.append(f"{name}={value}")


def foul(html: str) -> list[str]:
    """What a browser would run in a page, apart from our own script."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.faults


def leads_away(location: str) -> bool:
    """Whether a browser that follows this leaves our host; browsers read a backslash as a slash and drop control characters."""
    read = re.sub(r"[\x00-\x20]", "", location).replace("\\", "/")
    there = urlsplit(urljoin(f"{HOST}/a/b", read))
    return (there.scheme, there.netloc) != ("http", urlsplit(HOST).netloc)
