"""Templates, and what all of them know."""

from __future__ import annotations

import datetime as dt
import hashlib
import zoneinfo
from importlib.resources import files
from typing import Any, Final
from urllib.parse import unquote

from fastapi import APIRouter, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from taximeter_dashboard import amounts, filters, panels, receipts, sentences, times
from taximeter_dashboard.errors import NotFound
from taximeter_db import money

_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_FOLDER = files(__package__).joinpath("static")
_FILES: Final = {file.name: file.read_bytes() for file in _FOLDER.iterdir() if file.name.rpartition(".")[2] in _TYPES}
_VERSIONS: Final = {name: hashlib.blake2b(data, digest_size=6).hexdigest() for name, data in _FILES.items()}

router = APIRouter(include_in_schema=False)

_templates = Environment(
    loader=PackageLoader(__package__),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.globals.update(
    exact=amounts.exact,
    bare=money.format_usd,
    signed=amounts.signed,
    cell=amounts.cell,
    plain=amounts.plain,
    average=amounts.average,
    unbroken=amounts.unbroken,
    rounded=amounts.rounded,
    exactly=amounts.exactly,
    quantity=receipts.quantity,
    unit_words=receipts.unit_words,
    words=sentences.WORDS,
    kinds=panels.KINDS,
    usd=lambda text: amounts.exact(money.parse_usd(text)),
    least=filters.LEAST,
)


@router.get("/static/{name}")
def static_file(name: str) -> Response:
    """A style sheet, script or picture; its address changes with its content."""
    if name not in _FILES:
        raise NotFound
    headers = {"cache-control": "public, max-age=31536000, immutable"}
    return Response(_FILES[name], media_type=_TYPES[name.rpartition(".")[2]], headers=headers)


def base(request: Request) -> str:
    """The prefix under which a host mounted us, empty where it did not."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def zone_of(request: Request) -> zoneinfo.ZoneInfo:
    """The viewer's zone, from the cookie that the page's script sets."""
    return times.zone(unquote(request.cookies.get(times.ZONE_COOKIE, "UTC")))


def wants_part(request: Request) -> bool:
    """Whether the page's script asks for the inside of the details dialog alone."""
    return request.headers.get("x-taximeter-part") == "details"


def wants_panel(request: Request) -> bool:
    """Whether htmx asks for the panel alone."""
    headers = request.headers
    return headers.get("hx-request") == "true" and headers.get("hx-history-restore-request") != "true"


def render(
    request: Request,
    template: str,
    *,
    status: int = 200,
    now: dt.datetime | None = None,
    where: zoneinfo.ZoneInfo | None = None,
    **context: Any,
) -> HTMLResponse:
    """A template as an answer."""
    now = now or dt.datetime.now(dt.UTC)
    where = where or zone_of(request)
    root = base(request)
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    text = _templates.get_template(template).render(
        root=root,
        asset=lambda name: f"{root}/static/{name}?v={_VERSIONS[name]}",
        name=request.app.state.house.settings.dashboard_name,
        zone_label=times.zone_label(where, now),
        zone_name=where.key,
        here=path,
        short=lambda moment: times.short(moment, where, now),
        full=lambda moment: times.full(moment, where),
        day_words=lambda moment: times.day(moment, where),
        **context,
    )
    return HTMLResponse(text, status, {"vary": "HX-Request, X-Taximeter-Part, Cookie"})
