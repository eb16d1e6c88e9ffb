"""`taximeter quarantine`: what could not be booked, and what to do about it."""

from __future__ import annotations

import base64
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taximeter_cli import console
from taximeter_cli.errors import UsageError
from taximeter_cli.options import DataDir, Json, workspace_id

if TYPE_CHECKING:
    from psycopg import Connection

    from taximeter_db.quarantine import Action, Entry
    from taximeter_worker.tasks.replay import Replayed

app = typer.Typer(no_args_is_help=True, help="Events that could not be booked, kept whole with their reason.")

_PORTION = 200
"""Entries held in memory at a time; each may be a megabyte."""

EntryId = Annotated[int, typer.Argument(metavar="N", help="The entry's number.", show_default=False)]
Reason = Annotated[str | None, typer.Option(metavar="CODE", help="Only this reason, such as price_missing.")]
Workspace = Annotated[str | None, typer.Option(metavar="ID", help="Only this workspace.", callback=workspace_id)]


def describe(entry: Entry, *, whole: bool, actions: Sequence[Action] = ()) -> dict[str, Any]:
    """An entry for JSON; ``whole`` adds the event itself, in Base64 where it is not UTF-8, and what was tried with it."""
    facts: dict[str, Any] = {
        "id": entry.id,
        "kind": entry.kind,
        "workspace_id": entry.workspace_id,
        "event_id": entry.event_id,
        "reason": entry.reason,
        "detail": entry.detail,
        "received_at": entry.received_at,
        "resolved_at": entry.resolved_at,
        "resolution": entry.resolution,
        "resolved_by": entry.resolved_by,
        "resolution_note": entry.resolution_note,
    }
    if whole:
        facts |= {"content_type": entry.content_type, "properties": entry.properties}
        facts |= _as_text("event", entry.event)
        facts["actions"] = [_action(one) for one in actions]
    return facts


def _action(action: Action) -> dict[str, Any]:
    facts = {
        name: getattr(action, name)
        for name in ("done_at", "done_by", "action", "result", "reason", "detail", "note")
        if getattr(action, name) is not None
    }
    return facts | (_as_text("correction", action.correction) if action.correction is not None else {})


def _as_text(name: str, event: bytes) -> dict[str, str]:
    try:
        return {name: event.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(event).decode()}


@app.command("list")
def list_entries(
    reason: Reason = None,
    workspace: Workspace = None,
    everything: Annotated[bool, typer.Option("--all", metavar="", help="Resolved entries too.")] = False,
    after: Annotated[int, typer.Option(metavar="N", help="Only entries with a higher number.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Most entries shown.")] = 50,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """List what is open, the oldest first."""
    from taximeter_cli import session
    from taximeter_db import quarantine as store

    with session.database(data_dir) as conn:
        entries = store.find(
            conn, reason=reason, workspace_id=workspace, resolved=everything, after=after, limit=limit + 1
        )
        counts = store.open_counts(conn)
    shown, more = entries[:limit], len(entries) > limit
    if json:
        console.emit({"open": counts, "more": more, "entries": [describe(entry, whole=False) for entry in shown]})
        return
    if not shown:
        console.say("Nothing to show." if counts else "The quarantine is empty.")
        return
    console.table(
        ["N", "Received", "Reason", "Workspace", "Event", "Detail", *(["Resolved"] if everything else [])],
        [
            [
                entry.id,
                console.moment(entry.received_at),
                entry.reason,
                entry.workspace_id,
                entry.event_id,
                entry.detail,
                *([entry.resolution] if everything else []),
            ]
            for entry in shown
        ],
        right=["N"],
    )
    console.say("Open: " + (", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"))
    if more:
        console.say(f"There is more: --after {shown[-1].id}")


@app.command("show")
def show(entry_id: EntryId, data_dir: DataDir = None, json: Json = False) -> None:
    """Show one entry with the event as it was received, inputs and outputs included, and what was tried with it."""
    from taximeter_cli import session
    from taximeter_db import quarantine as store

    with session.database(data_dir) as conn:
        entry = store.get(conn, entry_id)
        actions = store.actions(conn, entry_id)
    described = describe(entry, whole=True, actions=actions)
    if json:
        console.emit(described)
        return
    _print_facts(described)
    for action in described["actions"]:
        console.say("")
        _print_facts(action)


def _print_facts(described: dict[str, Any]) -> None:
    console.facts(
        (name, _shown(name, value)) for name, value in described.items() if value is not None and name != "actions"
    )


def _shown(name: str, value: Any) -> Any:
    if name.endswith("_at"):
        return console.moment(value)
    return dumps(value, ensure_ascii=False) if name == "properties" else value


@app.command("replay")
def replay(
    entries: Annotated[list[int] | None, typer.Argument(metavar="N", help="Numbers of entries.")] = None,
    reason: Reason = None,
    everything: Annotated[bool, typer.Option("--all", metavar="", help="Everything that is open.")] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Correct a member, such as data.quantities.input_tokens=12."),
    ] = None,
    drops: Annotated[
        list[str] | None, typer.Option("--unset", metavar="PATH", help="Leave a member out, such as data.input.")
    ] = None,
    instead: Annotated[
        str | None, typer.Option("--with", metavar="FILE", help="Book the corrected event in this file (- is stdin).")
    ] = None,
    note: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; it stays with the entry.")] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Try to book entries again, after their cause was removed (a price set, for example), or one with a correction.

    What was received stays as it is; a correction is kept beside it.
    """
    from taximeter_cli import session

    if sum((bool(entries), reason is not None, everything)) != 1:
        raise typer.BadParameter("name entries by number, or give --reason CODE, or --all")
    if changes or drops or instead is not None:
        if len(entries or ()) != 1:
            raise typer.BadParameter("a correction is for one entry: name exactly one")
        if instead is not None and (changes or drops):
            raise typer.BadParameter(
                "give the whole corrected event with --with, or single members with --set and --unset"
            )
        _check_correction(changes or (), drops or (), instead)
    from taximeter_db.crypto.payload_crypto import PayloadCrypto
    from taximeter_db.quarantine import Attempt
    from taximeter_worker.consume.batch import limits_of, policy_of
    from taximeter_worker.tasks.replay import ReplayContext
    from taximeter_worker.tasks.replay import replay as replay_entries

    known = session.settings(data_dir)
    results: list[Replayed] = []
    context = ReplayContext(limits_of(known), policy_of(known), PayloadCrypto(known.masters))
    with session.booking(known) as conn, console.bar("entries", None, quiet=json) as bar:
        correction = _correction(conn, entries[0], changes or (), drops or (), instead) if entries else None
        attempt = Attempt(session.person(), note, correction)
        for numbers in [list(entries)] if entries else _open_entries(conn, reason):
            done = replay_entries(conn, numbers, attempt, context=context, skip_resolved=not entries)
            states = {state.workspace_id: state for result in done for state in result.states}
            holds: dict[str, list[str]] = {}
            for result in done:
                for workspace_id, ids in result.holds.items():
                    holds.setdefault(workspace_id, []).extend(ids)
            session.write_flags(known, conn, list(states.values()), holds)
            results += done
            bar.at(len(results))
    counts = Counter(result.result for result in results)
    if json:
        fields = ("entry_id", "result", "reason", "detail")
        console.emit({**counts, "entries": [{name: getattr(result, name) for name in fields} for result in results]})
        return
    for result in results:
        if result.result == "kept":
            console.say(f"Entry {result.entry_id} stays: {console.clean(result.detail)} [{result.reason}]")
    console.say(
        f"{counts['booked']:,} booked, {counts['duplicate']:,} were duplicates, {counts['kept']:,} stay in quarantine."
    )


def _check_correction(changes: Sequence[str], drops: Sequence[str], instead: str | None) -> None:
    from taximeter_worker.errors import CorrectionError
    from taximeter_worker.tasks.corrections import corrected

    if instead not in (None, "-") and not Path(instead).is_file():
        raise UsageError(f"there is no file {instead}.")
    try:
        corrected(b"{}", changes, drops)  # what fails with an empty event fails with any
    except CorrectionError as error:
        raise UsageError(str(error)) from error


def _correction(
    conn: Connection[Any], entry_id: int, changes: Sequence[str], drops: Sequence[str], instead: str | None
) -> bytes | None:
    """The event to book in an entry's place; None: its own."""
    if instead is not None:
        return sys.stdin.buffer.read() if instead == "-" else Path(instead).read_bytes()
    if not changes and not drops:
        return None
    from taximeter_db import quarantine as store
    from taximeter_worker.tasks.corrections import corrected

    return corrected(store.get(conn, entry_id).event, changes, drops)


def _open_entries(conn: Connection[Any], reason: str | None) -> Iterator[list[int]]:
    """Numbers of open entries, in portions; one that is quarantined again meanwhile is not visited a second time."""
    from taximeter_db import quarantine as store

    last, after = store.newest(conn), 0
    while portion := store.open_ids(conn, reason=reason, after=after, limit=_PORTION):
        portion = [number for number in portion if number <= last]
        if not portion:
            return
        after = portion[-1]
        yield portion


@app.command("dismiss")
def dismiss(
    entry_id: EntryId,
    note: Annotated[str, typer.Option(metavar="TEXT", help="Why; it stays with the entry.", show_default=False)],
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Close an entry without booking it."""
    from taximeter_cli import session
    from taximeter_db import quarantine as store

    if not note.strip():
        raise typer.BadParameter("say why this event is dismissed; the reason stays with it", param_hint="--note")
    with session.database(data_dir) as conn:
        entry = store.dismiss(conn, entry_id, by=session.person(), note=note)
    if json:
        console.emit(describe(entry, whole=False))
    else:
        console.say(f"Entry {entry.id} is dismissed.")


@app.command("erase")
def erase(
    entry_id: EntryId,
    yes: Annotated[bool, typer.Option("--yes", metavar="", help="Do not ask.")] = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Destroy what one entry says, for ever, whether or not it names a workspace; an open entry is dismissed.

    Its digest, reason and detail stay, and it is logged with who did it.
    """
    from taximeter_cli import session
    from taximeter_db import quarantine as store
    from taximeter_db.crypto import erasure

    with session.database(data_dir) as conn:
        store.get(conn, entry_id)
        if not yes:
            question = f"Destroy the event of entry {entry_id} for ever? Backups made before still hold it."
            typer.confirm(question, abort=True, err=True)
        erased = erasure.erase_entry(conn, entry_id, by=session.person())
    if json:
        console.emit({"entry_id": entry_id, "erased": erased})
    elif erased:
        console.say(f"Destroyed the event of entry {entry_id}. Its reason and digest stay.")
    else:
        console.say(f"Entry {entry_id} holds no event any more.")
