"""`taximeter gateway`: HTTP for tools without AMQP or Redis."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import typer

from taximeter.brokers.opening import PRODUCER_KEY_VARIABLE
from taximeter.environment import SPOOL_VARIABLE, TOP_UP_URL_VARIABLE, default_spool
from taximeter_cli import addresses, odd_variables
from taximeter_cli.embedded import state as states
from taximeter_cli.errors import CliError
from taximeter_cli.options import DataDir, JsonLog
from taximeter_db import json_logs

URL: Final = "TAXIMETER_GATEWAY_URL"
HOST: Final = "TAXIMETER_GATEWAY_HOST"
PORT: Final = "TAXIMETER_GATEWAY_PORT"
_SPOOL_FOLDER: Final = "gateway-spool"


def installed() -> bool:
    """Whether the gateway's packages are here: ``taximeter[embedded]`` alone goes without."""
    return all(importlib.util.find_spec(name) for name in ("fastapi", "uvicorn"))


def embedded_spool(folder: Path) -> dict[str, str]:
    """Where the spool of an embedded instance's gateway is."""
    return {SPOOL_VARIABLE: str(folder / _SPOOL_FOLDER)}


def gateway(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port.", show_default="8090")] = None,
    data_dir: DataDir = None,
    json: JsonLog = False,
) -> None:
    """Take events over HTTP, for tools without AMQP or Redis. docs/gateway.md describes it."""
    odd_variables.tell(as_json=json)
    known = addresses.find(data_dir, addresses.DATABASE, addresses.BROKER, addresses.REDIS)
    environment = {**os.environ, **(known if addresses.given() else addresses.as_part(known, "gateway"))}
    if not addresses.given() and not environment.get(SPOOL_VARIABLE):
        environment |= embedded_spool(states.data_folder(data_dir))
    if json:
        environment[json_logs.VARIABLE] = json_logs.JSON
    if host is not None:
        environment[HOST] = host
    if port is not None:
        environment[PORT] = str(port)
    serve(environment)


def serve(environment: Mapping[str, str]) -> None:
    """Serve until SIGINT or SIGTERM, which end the process with exit code 0.

    Raises:
        ConfigurationError: A setting makes no sense.
        CliError: A package is missing.
        ListenError: A port is taken.
    """
    try:
        from taximeter_gateway.app import Publishing, create_app
        from taximeter_gateway.serving import serve as serve_app
        from taximeter_gateway.settings import Settings
    except ModuleNotFoundError as error:
        raise CliError(
            f"{error.name} is not installed. Install the gateway with: pip install 'taximeter[gateway]'."
        ) from error
    settings = Settings.from_env(environment)
    spool = environment.get(SPOOL_VARIABLE)
    publishing = Publishing(
        spool=Path(spool) if spool else default_spool(),
        producer_key=environment.get(PRODUCER_KEY_VARIABLE) or None,
        top_up_url=environment.get(TOP_UP_URL_VARIABLE) or None,
    )
    serve_app(create_app(settings, publishing), settings)


if __name__ == "__main__":
    serve(os.environ)
