"""`taximeter up` and `taximeter env`: the embedded instance."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from taximeter_cli import console
from taximeter_cli.addresses import running_instance
from taximeter_cli.commands.dashboard import URL, sign_in_link
from taximeter_cli.embedded import state as states
from taximeter_cli.options import DataDir, Json

_LABELS = {
    "TAXIMETER_DATABASE_URL": "PostgreSQL",
    "TAXIMETER_BROKER_URL": "Broker",
    "TAXIMETER_REDIS_URL": "Flags (Redis)",
    "TAXIMETER_METRICS_URL": "Metrics",
    "TAXIMETER_DASHBOARD_URL": "AI Tracking",
    "TAXIMETER_GATEWAY_URL": "Gateway",
}


class _Told:
    """Tells a person on stderr what the supervisor does."""

    @contextlib.contextmanager
    def starting(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        with console.error_console.status(f"starting {name}") if sys.stderr.isatty() else contextlib.nullcontext():
            yield
        console.note(f"{name} is ready ({time.monotonic() - begun:.1f} s)")

    def say(self, sentence: str) -> None:
        console.note(sentence)


def up(
    data_dir: DataDir = None,
    demo: Annotated[
        bool, typer.Option("--demo", metavar="", help="Add a few workspaces and a steady trickle of usage.")
    ] = False,
    json: Json = False,
) -> None:
    """Run the whole system on this machine: PostgreSQL, Valkey, worker, page and gateway.

    Everything is kept in the data directory. Ctrl-C stops all of it in order; the data stays for the next start.
    """
    from taximeter_cli.embedded.stack import Stack
    from taximeter_cli.embedded.supervisor import Supervisor

    folder = states.data_folder(data_dir)
    states.prepare(folder)
    with states.sole_supervisor(folder):
        stack = Stack(folder, demo=demo)

        def ready(addresses: dict[str, str]) -> None:
            if json:
                console.emit({"data_dir": str(folder), **addresses, **_sign_in(folder, addresses)})
            else:
                _announce(folder, addresses)

        Supervisor(folder, stack.parts(), _Told(), stack.addresses).run(ready)
    console.note(f"Stopped. The data stays in {folder}.")


def _announce(folder: Path, addresses: dict[str, str]) -> None:
    console.say(f"\nTaximeter runs on {folder}\n")
    console.facts((label, addresses[name]) for name, label in _LABELS.items() if name in addresses)
    for link in _sign_in(folder, addresses).values():
        console.say(f"\nAI Tracking, signed in as the owner (works once, within a day):\n{link}")
    console.say(f'\nIn another terminal:  eval "$(taximeter env{states.data_dir_option(folder)})"')
    console.say("Ctrl-C stops everything; the data stays.\n")


def _sign_in(folder: Path, addresses: dict[str, str]) -> dict[str, str]:
    return {"sign_in": sign_in_link(folder, addresses)} if URL in addresses else {}


def env(data_dir: DataDir = None, json: Json = False) -> None:
    """Print the addresses of the running instance as shell exports: eval "$(taximeter env)"."""
    addresses = running_instance(data_dir)
    if json:
        console.emit(addresses)
        return
    for name, value in addresses.items():
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
