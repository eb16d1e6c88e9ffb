"""`taximeter tokens`: service tokens, with which programs use the JSON API."""

from __future__ import annotations

from typing import Annotated

import typer

from taximeter_cli import console
from taximeter_cli.options import DataDir, Json, workspace_id

app = typer.Typer(no_args_is_help=True, help="Service tokens, with which programs use the JSON API.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="What the program is called.", show_default=False)]


def _workspace_ids(given: list[str] | None) -> list[str]:
    for one in given or ():
        workspace_id(one)
    return list(given or ())


def _workspace_or_all(given: str | None) -> str | None:
    return given if given == "*" else workspace_id(given)


@app.command("new")
def new(
    name: Name,
    workspaces: Annotated[
        list[str] | None,
        typer.Option(
            "--workspace",
            metavar="ID",
            help="Only for this workspace; may be given several times. Without it: for every one.",
            callback=_workspace_ids,
        ),
    ] = None,
    read_only: Annotated[bool, typer.Option("--read", metavar="", help="It may read, and change nothing.")] = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Make a token and print it, once: only its hash is kept."""
    from taximeter_cli import session
    from taximeter_db import service_tokens

    with session.database(data_dir) as conn:
        token = service_tokens.make(conn, name, workspaces=workspaces or (), read_only=read_only, by=session.person())
    if json:
        console.emit({"name": name, "token": token})
    else:
        console.say(token)
        console.note("Keep it now: it cannot be shown again.")


@app.command("list")
def list_tokens(data_dir: DataDir = None, json: Json = False) -> None:
    """List the tokens, without their secrets."""
    from taximeter_cli import session
    from taximeter_db import service_tokens

    with session.database(data_dir) as conn:
        tokens = service_tokens.all_tokens(conn)
    if json:
        console.emit(tokens)
        return
    if not tokens:
        console.say("There is no token.")
        return
    console.table(
        ["Name", "Workspaces", "May", "Made", "By"],
        [
            [
                token.name,
                "all" if token.workspaces is None else ", ".join(token.workspaces),
                "read" if token.read_only else "read and change",
                console.moment(token.created_at),
                token.created_by,
            ]
            for token in tokens
        ],
    )


@app.command("revoke")
def revoke(
    name: Name,
    workspace: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Where several tokens have this name: the one for this workspace (* is the one for every workspace).",
            callback=_workspace_or_all,
        ),
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Revoke a token: from now on it opens nothing, in any workspace."""
    from taximeter_cli import session
    from taximeter_db import service_tokens

    with session.database(data_dir) as conn:
        service_tokens.revoke(conn, name, by=session.person(), workspace_id=workspace)
    if json:
        console.emit({"name": name, "revoked": True})
    else:
        console.say(f"The token {name} is revoked.")
