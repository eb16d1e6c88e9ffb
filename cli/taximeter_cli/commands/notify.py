"""`taximeter notify`: where notices go, and what became of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taximeter_cli import console
from taximeter_cli.errors import CliError
from taximeter_cli.options import DataDir, Json, WorkspaceId, workspace_id

if TYPE_CHECKING:
    from taximeter_db.notices.deliveries import Sent
    from taximeter_db.notices.targets import Target

app = typer.Typer(no_args_is_help=True, help="Where notices go: webhooks, e-mail, Slack and other services.")

Id = Annotated[
    int, typer.Argument(min=1, max=2**63 - 1, metavar="TARGET", help="Its number, as `notify list` shows it.")
]
_LOOK_SECONDS = 0.1


@app.command("add")
def add(
    webhook: Annotated[
        str | None, typer.Option(metavar="URL", help="An https:// address that takes signed JSON.", show_default=False)
    ] = None,
    apprise: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Any service that Apprise knows, such as mailtos:// or slack://.", show_default=False
        ),
    ] = None,
    workspace: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Notices of this workspace.", show_default="of all", callback=workspace_id),
    ] = None,
    kinds: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="TYPE", help="Only of this type; may be repeated.", show_default="all"),
    ] = None,
    quiet: Annotated[
        int,
        typer.Option(
            metavar="SECONDS", help="For this long a state that was sent is not sent again; the last one always is."
        ),
    ] = 0,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", metavar="", help="It may be an address that is not public, and http://.")
    ] = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Add a target. A webhook's secret is shown this once."""
    from taximeter_cli import session
    from taximeter_db.notices import targets

    if (webhook is None) == (apprise is None):
        raise typer.BadParameter("give either --webhook or --apprise")
    if apprise is not None:
        _check_apprise(apprise)
    new = targets.NewTarget(
        channel=targets.WEBHOOK if webhook is not None else targets.APPRISE,
        address=webhook or apprise or "",
        workspace_id=workspace or targets.EVERY_WORKSPACE,
        types=tuple(kinds or ()),
        allow_private=allow_private,
        any_service=True,
        quiet_seconds=quiet,
    )
    masters = session.masters_if_any(data_dir)
    with session.database(data_dir) as conn:
        added = targets.add(conn, new, masters, session.person())
    if json:
        console.emit({"id": added.target_id, "secret": added.secret})
        return
    console.say(f"Target {added.target_id} is added. `taximeter notify test {added.target_id}` tries it out.")
    if added.secret is not None:
        console.note("Its notices are signed with this secret, which is shown once:")
        console.say(added.secret)


@app.command("list")
def show(data_dir: DataDir = None, json: Json = False) -> None:
    """Show the targets, without what is secret of their addresses."""
    from taximeter_cli import session
    from taximeter_db.notices import deliveries, targets

    with session.database(data_dir) as conn:
        listed = targets.listed(conn)
        counts = deliveries.counts(conn)
    if json:
        console.emit([_as_json(target, counts.get(target.target_id, (0, 0))) for target in listed])
        return
    if not listed:
        console.say("There is no target: nobody is notified of anything.")
        return
    console.table(
        ("target", "workspace", "to", "types", "quiet", "pending", "dead", "disabled"),
        (
            (
                target.target_id,
                "all" if target.workspace_id == targets.EVERY_WORKSPACE else target.workspace_id,
                target.shown,
                "all" if target.types is None else ", ".join(target.types),
                f"{target.quiet_seconds} s",
                *counts.get(target.target_id, (0, 0)),
                target.disabled_why,
            )
            for target in listed
        ),
        right=("target", "quiet", "pending", "dead"),
    )


@app.command("test")
def try_out(
    target_id: Id,
    timeout: Annotated[
        int, typer.Option(min=0, max=3600, metavar="SECONDS", help="How long to wait for a worker.")
    ] = 45,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Let a worker send a test notice, and say what became of it; exit code 1 where it did not arrive."""
    from taximeter_cli import session
    from taximeter_db.notices import deliveries, targets

    with session.database(data_dir) as conn:
        target = targets.get(conn, target_id)
        if target.disabled_at is not None:
            raise CliError(f"Target {target_id} is disabled. `taximeter notify replay {target_id}` enables it again.")
        notice_id = deliveries.send_test(conn, target, session.person())
        until = time.monotonic() + timeout
        sent = deliveries.outcome_of(conn, target, notice_id)
        while not sent.tries and sent.state == "pending" and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
            sent = deliveries.outcome_of(conn, target, notice_id)
    if json:
        console.emit({"id": target_id, "delivered": sent.state == "delivered", "detail": sent.detail})
    elif sent.state == "delivered":
        console.say(f"Target {target_id} took the test notice.")
    elif sent.tries:
        console.note(f"It did not arrive: {sent.detail} It is tried again.")
    else:
        console.note(f"No worker has sent it within {timeout} s; notices before it may be waiting. One will.")
    if sent.state != "delivered":
        raise typer.Exit(1)


@app.command("replay")
def replay(
    target_id: Id,
    workspace: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Only notices of this workspace.", show_default="of all", callback=workspace_id
        ),
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Try again what was given up at a target; one that was disabled is enabled again."""
    from taximeter_cli import session
    from taximeter_db.notices import deliveries, targets

    with session.database(data_dir) as conn:
        replayed = deliveries.replay(conn, targets.get(conn, target_id), workspace)
    if json:
        console.emit({"id": target_id, "replayed": replayed})
    else:
        console.say(f"{console.counted(replayed, 'notice')} will be sent again.")


@app.command("rotate")
def rotate(target_id: Id, data_dir: DataDir = None, json: Json = False) -> None:
    """Give a webhook a new secret and print it. For a day notices are signed with the old one, too."""
    from taximeter_cli import session
    from taximeter_db.notices import targets

    masters = session.masters_if_any(data_dir)
    with session.database(data_dir) as conn:
        secret = targets.rotate(conn, targets.get(conn, target_id), masters, session.person())
    if json:
        console.emit({"id": target_id, "secret": secret})
    else:
        console.note("The new secret is shown once:")
        console.say(secret)


@app.command("log")
def log(
    workspace: WorkspaceId,
    limit: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="How many, the newest first.")] = 20,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Show what was sent of a workspace, and what became of it."""
    from taximeter_cli import session
    from taximeter_db.notices import deliveries

    with session.database(data_dir) as conn:
        sent = deliveries.sent(conn, workspace, limit=limit)
    if json:
        console.emit([_sent_as_json(entry) for entry in sent])
        return
    console.table(
        ("at", "type", "target", "state", "tries", "last try"),
        (
            (
                console.moment(entry.happened_at),
                entry.type,
                entry.target_id,
                entry.state,
                entry.tries,
                "" if entry.detail is None else f"{entry.outcome}: {entry.detail}",
            )
            for entry in sent
        ),
        right=("target", "tries"),
    )


@app.command("remove")
def remove(target_id: Id, data_dir: DataDir = None, json: Json = False) -> None:
    """Remove a target, and what still waits for it."""
    from taximeter_cli import session
    from taximeter_db.notices import targets

    with session.database(data_dir) as conn:
        targets.remove(conn, targets.get(conn, target_id), session.person())
    if json:
        console.emit({"id": target_id, "removed": True})
    else:
        console.say(f"Target {target_id} is removed.")


def _check_apprise(address: str) -> None:
    """Refuse an address that Apprise itself cannot use; it is not quoted."""
    import logging
    import warnings

    from taximeter_db.notices import addresses

    addresses.check_apprise(address, any_service=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports, its services only now
        import apprise

        logging.getLogger("apprise").disabled = True
        known = apprise.Apprise().add(address)
    if not known:
        raise CliError(
            "Apprise does not know such an address, or something is missing in it. Its documentation lists all."
        )


def _as_json(target: Target, counts: tuple[int, int]) -> dict[str, Any]:
    from taximeter_db.notices.targets import EVERY_WORKSPACE

    return {
        "id": target.target_id,
        "workspace": None if target.workspace_id == EVERY_WORKSPACE else target.workspace_id,
        "channel": target.channel,
        "address": target.shown,
        "types": target.types,
        "quiet_seconds": target.quiet_seconds,
        "allow_private": target.allow_private,
        "created_at": target.created_at,
        "created_by": target.created_by,
        "disabled_at": target.disabled_at,
        "disabled_why": target.disabled_why,
        "pending": counts[0],
        "dead": counts[1],
    }


def _sent_as_json(entry: Sent) -> dict[str, Any]:
    return {
        "id": f"notice_{entry.public_id.hex}",
        "type": entry.type,
        "at": entry.happened_at,
        "target": entry.target_id,
        "state": entry.state,
        "tries": entry.tries,
        "ended_at": entry.ended_at,
        "outcome": entry.outcome,
        "detail": entry.detail,
    }
