"""Templates, and what all of them know."""

from __future__ import annotations

import datetime as dt
import hashlib
import zoneinfo
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

from fastapi import APIRouter, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from taximeter_dashboard.errors import NotFoundError
from taximeter_dashboard.formatting import amounts, receipts, sentences, times
from taximeter_dashboard.formatting.times import zone_of
from taximeter_dashboard.reading import filters
from taximeter_dashboard.settings import Settings
from taximeter_db import money
from taximeter_db.ledger import rollups
from taximeter_db.queries import payments

_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_FOLDER = files("taximeter_dashboard").joinpath("static")
_FILES: Final = {file.name: file.read_bytes() for file in _FOLDER.iterdir() if file.name.rpartition(".")[2] in _TYPES}
# Several files to read, one to fetch: each further request would hold up the first picture.
_FILES["app.css"] += b"".join(_FILES.pop(name) for name in ("charts.css", "details.css", "widths.css"))


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=6).hexdigest()


_VERSIONS: Final = {name: _digest(data) for name, data in _FILES.items()}

router = APIRouter(include_in_schema=False)

_templates = Environment(
    loader=PackageLoader("taximeter_dashboard"),
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
    kinds=payments.KINDS,
    usd=lambda text: amounts.exact(money.parse_usd(text)),
    least=filters.LEAST,
    names_max=rollups.NAMES_MAX,
    values_max=rollups.VALUES_MAX,
    labels_max=rollups.LABELS_MAX,
)


class ThemeFiles:
    """The host's style sheet and logo, with their addresses below ours; None where there is none."""

    def __init__(self, settings: Settings) -> None:
        self.files: dict[str, tuple[bytes, str]] = {}
        sheet = settings.theme.style_sheet()
        if sheet:
            self.files["theme.css"] = sheet, "text/css"
        logo = settings.theme.read_logo()
        if logo:
            self.files["logo"] = logo
        self.css, self.logo = (self._address(name) for name in ("theme.css", "logo"))

    def _address(self, name: str) -> str | None:
        return f"{name}?v={_digest(self.files[name][0])}" if name in self.files else None


@router.get("/static/{name}")
def static_file(request: Request, name: str) -> Response:
    """A style sheet, script or picture; its address changes with its content."""
    files: dict[str, tuple[bytes, str]] = request.app.state.theme.files
    if name in _FILES:
        data, kind = _FILES[name], _TYPES[name.rpartition(".")[2]]
    elif name in files:
        data, kind = files[name]
    else:
        raise NotFoundError
    return Response(data, media_type=kind, headers={"cache-control": "public, max-age=31536000, immutable"})


def base(request: Request) -> str:
    """The prefix under which a host mounted us, empty where it did not."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def safe_path(path: str, otherwise: str) -> str:
    """A path of this host to lead a browser back to; an address of another host must not be led to from here."""
    ours = path.startswith("/") and not path.startswith("//") and path.isprintable() and path.isascii()
    return path if ours and "\\" not in path and path != "/" else otherwise


def panel_name(path: str) -> str:
    """What a failed address would have shown, as the page calls it: ``Usages``."""
    parts = path.strip("/").split("/")
    name = parts[2] if len(parts) > 2 and parts[2].isalpha() else "usages"
    return name.capitalize()


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
    headers: Mapping[str, str] | None = None,
    now: dt.datetime | None = None,
    where: zoneinfo.ZoneInfo | None = None,
    **context: Any,
) -> HTMLResponse:
    """A template as an answer."""
    now = now or dt.datetime.now(dt.UTC)
    where = where or zone_of(request)
    root = base(request)
    settings = request.app.state.app_context.settings
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    text = _templates.get_template(template).render(
        root=root,
        asset=lambda name: f"{root}/static/{name}?v={_VERSIONS[name]}",
        name=settings.dashboard_name,
        home_url=settings.dashboard_home_url,
        theme=request.app.state.theme,
        zone_label=times.zone_label(where, now),
        zone_name=where.key,
        here=path,
        short=lambda moment: times.short(moment, where, now),
        full=lambda moment: times.full(moment, where),
        day_words=lambda moment: times.day(moment, where),
        **context,
    )
    return HTMLResponse(text, status, {"vary": "HX-Request, X-Taximeter-Part, Cookie", **(headers or {})})
