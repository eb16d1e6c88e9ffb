"""`taximeter drain`: one broker's queues into another."""

from __future__ import annotations

import os
from typing import Annotated

import msgspec
import typer

from taximeter_cli import addresses, console
from taximeter_cli.options import DataDir, Json


def drain(
    source: Annotated[str, typer.Option("--from", metavar="URL", help="The broker to empty.", show_default=False)],
    target: Annotated[
        str | None,
        typer.Option("--to", metavar="URL", help="Where its messages go.", show_default=addresses.BROKER),
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Move every message of one broker's queues into another, each booked once; safe to kill and to run again.

    A message is acknowledged at the source once the target has confirmed it. Ends when the source brings no more.
    """
    from taximeter_worker.drain import drain as move

    to = target if target is not None else addresses.find(data_dir, addresses.BROKER)[addresses.BROKER]
    with console.bar("messages", None, quiet=json) as bar:
        drained = move(source, to, os.environ, bar.at)
    if json:
        console.emit(msgspec.structs.asdict(drained))
        return
    console.say(f"Moved {console.counted(drained.messages, 'message')}, {drained.bytes:,} bytes.")
    for queue, messages in sorted(drained.queues.items()):
        console.say(f"  {queue}: {messages:,}")
