"""`taximeter producers`: the keys of those who publish through the HTTP gateway."""

from __future__ import annotations

from typing import Annotated

import typer

from taximeter_cli import console
from taximeter_cli.options import DataDir, Json

app = typer.Typer(no_args_is_help=True, help="The keys of those who publish through the HTTP gateway.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="The key's name.", show_default=False)]


@app.command("new")
def new(
    name: Name,
    workspace: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="For this workspace; may be repeated.", show_default="any")
    ] = None,
    tool: Annotated[
        list[str] | None, typer.Option(metavar="TOOL", help="For this tool; may be repeated.", show_default="any")
    ] = None,
    payments: Annotated[bool, typer.Option("--payments", metavar="", help="For payments too.")] = False,
    rate: Annotated[
        int | None, typer.Option(min=1, metavar="EVENTS", help="Most events a second.", show_default="any number")
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Make a key and print it. It is shown this once; the database keeps a hash of it alone."""
    from taximeter_cli import session
    from taximeter_db import producer_keys

    kinds = (producer_keys.USAGE, producer_keys.PAYMENT) if payments else (producer_keys.USAGE,)
    scope = producer_keys.Scope(
        workspaces=tuple(workspace or ()), tools=tuple(tool or ()), kinds=kinds, events_per_second=rate
    )
    with session.database(data_dir) as conn:
        key = producer_keys.create(conn, name, scope, session.person())
    if json:
        console.emit({"name": name, "key": key})
    else:
        console.note("This key is shown once:")
        console.say(key)


@app.command("list")
def show(data_dir: DataDir = None, json: Json = False) -> None:
    """Show the keys, the revoked ones too: their names and what they are for."""
    from taximeter_cli import session
    from taximeter_db import producer_keys

    with session.database(data_dir) as conn:
        producers = producer_keys.listed(conn)
    if json:
        console.emit(producers)
        return
    console.table(
        ("name", "workspaces", "tools", "kinds", "events/s", "created", "by", "revoked"),
        (
            (
                one.name,
                "any" if one.workspaces is None else ", ".join(one.workspaces),
                "any" if one.tools is None else ", ".join(one.tools),
                ", ".join(one.kinds),
                one.events_per_second or "any",
                console.moment(one.created_at),
                one.created_by,
                console.moment(one.revoked_at),
            )
            for one in producers
        ),
        right=("events/s",),
    )


@app.command("revoke")
def revoke(name: Name, data_dir: DataDir = None, json: Json = False) -> None:
    """End a key: within a second no gateway takes it any more."""
    from taximeter_cli import session
    from taximeter_db import producer_keys

    with session.database(data_dir) as conn:
        producer_keys.revoke(conn, name)
    if json:
        console.emit({"name": name, "revoked": True})
    else:
        console.say(f"The key {name} is revoked.")
