"""`taximeter keys`: the master keys that inputs and outputs are encrypted under."""

from __future__ import annotations

from typing import Annotated

import typer

from taximeter_cli import console
from taximeter_cli.options import DataDir, Json

app = typer.Typer(no_args_is_help=True, help="The master keys under which inputs and outputs are encrypted.")


@app.command("new")
def new(json: Json = False) -> None:
    """Print a new master key. Keep a copy apart from the database's backups: without it no contents can be read."""
    from taximeter_db.crypto import master_keys

    key = master_keys.new()
    if json:
        console.emit({"key": key, "name": master_keys.parse(key).current})
    else:
        console.say(key)


@app.command("list")
def show(data_dir: DataDir = None, json: Json = False) -> None:
    """Show which master keys are in use, by name, and which are known here."""
    from taximeter_cli import session
    from taximeter_db.crypto import rotation

    masters = session.masters(data_dir)
    with session.database(data_dir) as conn:
        used = rotation.names(conn)
    names = sorted({*used, masters.current}, key=lambda name: (name != masters.current, name))
    if json:
        console.emit(
            [
                {
                    "name": name,
                    "current": name == masters.current,
                    "known": name in masters,
                    "data_keys": used.get(name, 0),
                }
                for name in names
            ]
        )
        return
    for name in names:
        about = "current" if name == masters.current else "known here" if name in masters else "NOT known here"
        console.say(f"{name}  {about}, wraps {console.counted(used.get(name, 0), 'data key')}")


@app.command("rotate")
def rotate(data_dir: DataDir = None, json: Json = False) -> None:
    """Wrap every data key with the current master key, the first one given; exit code 1 where one is locked.

    Give the new key first and the old ones after it, run this, and take the old ones away. Contents are not touched.
    """
    from taximeter_cli import session
    from taximeter_db.crypto import rotation

    masters = session.masters(data_dir)
    with session.database(data_dir) as conn:
        done = rotation.rotate(conn, masters)
    if json:
        console.emit(done)
    else:
        console.say(f"Wrapped {console.counted(done.rewrapped, 'data key')} with the master key {masters.current}.")
        if done.locked:
            console.note(f"{console.counted(done.locked, 'data key')} stayed: their master keys are not given here.")
    if done.locked:
        raise typer.Exit(1)


@app.command("abandon")
def abandon(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, as `keys list` shows it.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", metavar="", help="Do not ask.")] = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Let workers start without a master key that is lost; what was encrypted under it stays unreadable."""
    from taximeter_cli import session
    from taximeter_db.crypto import key_register

    with session.database(data_dir) as conn:
        if not yes:
            question = f"Go on without the master key {name}? What was encrypted under it can only be read with it."
            typer.confirm(question, abort=True, err=True)
        key_register.abandon(conn, name)
    if json:
        console.emit({"name": name, "abandoned": True})
    else:
        console.say(f"Workers may start without {name}. The next one registers its own current master key.")
