"""`taximeter dashboard`: the AI Tracking page and the JSON API."""

from __future__ import annotations

import importlib.util
import os
import secrets
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Final

import typer

from taximeter_cli import addresses, odd_variables
from taximeter_cli.console import clean
from taximeter_cli.embedded import state as states
from taximeter_cli.errors import CliError
from taximeter_cli.options import DataDir, JsonLog
from taximeter_db import json_logs

SECRET: Final = "TAXIMETER_DASHBOARD_SECRET"  # noqa: S105 - the name of a variable
URL: Final = "TAXIMETER_DASHBOARD_URL"
_SECRET_FILE = "dashboard.secret"  # noqa: S105 - the name of a file


def installed() -> bool:
    """Whether the page's packages are here: ``taximeter[embedded]`` alone goes without."""
    return all(
        importlib.util.find_spec(name) for name in ("fastapi", "httpx2", "jinja2", "joserfc", "psycopg_pool", "uvicorn")
    )


def embedded_secret(folder: Path) -> str:
    """The secret of an embedded instance, made on first use and readable for its owner alone."""
    path = folder / _SECRET_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="ascii")
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        secret = secrets.token_urlsafe(48)
        stream.write(secret)
    return secret


def sign_in_link(folder: Path, known: Mapping[str, str]) -> str:
    """A link that signs the owner of an embedded instance in, once; `known` are its addresses."""
    from taximeter_dashboard.auth.viewers import EVERY_WORKSPACE, OWNER, Keys, Viewer
    from taximeter_dashboard.settings import Settings

    viewer = Viewer("owner", "Owner", {EVERY_WORKSPACE: OWNER})
    settings = Settings(database_url=known[addresses.DATABASE], dashboard_secret=embedded_secret(folder))
    return f"{known[URL].rstrip('/')}/sign-in/{Keys(settings).sign_in_code(viewer)}"


def dashboard(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port.", show_default="8080")] = None,
    data_dir: DataDir = None,
    json: JsonLog = False,
) -> None:
    """Serve the AI Tracking page and the JSON API. docs/dashboard.md describes its settings."""
    odd_variables.tell(as_json=json)
    known = addresses.find(data_dir, addresses.DATABASE)
    if not addresses.given():
        known |= addresses.find(data_dir, addresses.REDIS)
    environment = {**os.environ, **(known if addresses.given() else addresses.as_part(known, "dashboard"))}
    folder = states.data_folder(data_dir)
    if not environment.get(SECRET) and not os.environ.get(addresses.DATABASE):
        environment[SECRET] = embedded_secret(folder)
    environment |= addresses.master_key(folder, environment)
    if json:
        environment[json_logs.VARIABLE] = json_logs.JSON
    if host is not None:
        environment["TAXIMETER_DASHBOARD_HOST"] = host
    if port is not None:
        environment["TAXIMETER_DASHBOARD_PORT"] = str(port)
    serve(environment)


def serve(environment: Mapping[str, str]) -> None:
    """Serve until SIGINT or SIGTERM, which end the process with exit code 0.

    Raises:
        ConfigurationError: A setting makes no sense.
        CliError: A package is missing, or the port is taken.
    """
    try:
        import uvicorn

        from taximeter_dashboard.app import create_app
        from taximeter_dashboard.settings import Settings
    except ModuleNotFoundError as error:
        raise CliError(
            f"{error.name} is not installed. Install the page with: pip install 'taximeter[dashboard]'."
        ) from error
    from taximeter_cli import held
    from taximeter_cli.receipts import Receipts

    settings = Settings.from_env(environment)
    app: Any = create_app(settings, Receipts(), settings.masters, held.reader(settings.redis_url))
    as_json = settings.log_format == json_logs.JSON
    if as_json:
        json_logs.start()
    listener = _listen(settings.dashboard_host, settings.dashboard_port)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
        lifespan="on",
        log_config=None if as_json else uvicorn.config.LOGGING_CONFIG,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)  # uvicorn raises the signal that stopped it once more when it has ended
    uvicorn.Server(config).run(sockets=[listener])


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # IPPROTO_TCP named: without it uvicorn leaves Nagle's algorithm on, and every answer is 40 ms late.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, TypeError, UnicodeError) as error:  # the latter for a host that cannot be encoded
        listener.close()
        why = getattr(error, "strerror", None) or "this is not the name of a host"
        raise CliError(f"Port {port} of {clean(host)} cannot be had: {why}. Choose another with --port.") from error
    return listener


if __name__ == "__main__":
    serve(os.environ)
