"""`taximeter workspace` and `taximeter credit`: settings, balances and payments of one workspace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from taximeter_cli import console
from taximeter_cli.errors import CliError, UsageError
from taximeter_cli.options import DataDir, Json, WorkspaceId
from taximeter_db.money import LOW_BALANCE_DEFAULT, MINIMUM_BALANCE_DEFAULT, format_usd

if TYPE_CHECKING:
    from pathlib import Path

    from psycopg import Connection

    from taximeter_db.workspaces import WorkspaceDetails

KIND_HELP = (
    "top_up, promo, refund (credit back to the workspace, not money to the payer), clawback (money that the payer took back),"
    " reinstated (a clawback undone), expiry (the rest of a promo) or adjustment."
)

app = typer.Typer(no_args_is_help=True, help="A workspace's limits, balance, status and totals.")


def describe(details: WorkspaceDetails) -> dict[str, Any]:
    """A workspace for JSON; the names are those of the view ``workspace_balance``."""
    return {
        "workspace_id": details.workspace_id,
        "seen": details.created_at is not None,
        "balance": format_usd(details.balance),
        "minimum_balance": format_usd(details.minimum),
        "low_balance_threshold": format_usd(details.low),
        "status": details.status,
        "ai_enabled": details.enabled,
        "usage_count": details.usage_count,
        "usage_cost": format_usd(details.usage_cost),
        "payment_count": details.payment_count,
        "payment_total": format_usd(details.payment_total),
        "duplicate_count": details.duplicate_count,
        "quarantined_open": details.quarantined_open,
        "created_at": details.created_at,
        "updated_at": details.updated_at,
    }


def _print(details: WorkspaceDetails, json: bool, data_dir: Path | None) -> None:
    from taximeter_cli import session

    held = session.held(data_dir, details.workspace_id)
    available = None if held is None else details.balance - details.minimum - held
    if json:
        amounts = {"held": held, "available": available}
        console.emit(
            describe(details) | {name: None if pico is None else format_usd(pico) for name, pico in amounts.items()}
        )
        return
    unknown = "unknown: Redis cannot be asked"
    console.facts(
        [
            ("Workspace", details.workspace_id),
            ("Balance", f"{format_usd(details.balance)} USD"),
            ("Status", f"{details.status} (AI is {'enabled' if details.enabled else 'disabled'})"),
            ("Minimum balance", f"{format_usd(details.minimum)} USD (below it AI is disabled)"),
            ("Low-balance threshold", f"{format_usd(details.low)} USD (below it there is a warning)"),
            ("Held", unknown if held is None else f"{format_usd(held)} USD (for calls that run; not spent)"),
            ("Available", unknown if available is None else f"{format_usd(available)} USD (for further holds)"),
            ("Usages", f"{details.usage_count:,}, {format_usd(details.usage_cost)} USD"),
            ("Payments", f"{details.payment_count:,}, {format_usd(details.payment_total)} USD"),
            ("Duplicates", f"{details.duplicate_count:,} (not charged)"),
            ("In quarantine", f"{details.quarantined_open:,} (taximeter quarantine list)"),
            (
                "Last change",
                console.moment(details.updated_at) or "never seen: no usage, payment or setting created it",
            ),
        ]
    )


@app.command("show")
def show(workspace_id: WorkspaceId, data_dir: DataDir = None, json: Json = False) -> None:
    """Show a workspace's balance, status, limits and totals; of one that was never seen, what a new one has."""
    from taximeter_cli import session
    from taximeter_db import workspaces

    with session.database(data_dir) as conn:
        details = workspaces.find(conn, workspace_id)
        if details is None:
            new = session.new_workspaces()
            details = workspaces.unseen(conn, workspace_id, minimum=new.minimum, low=new.low)
    _print(details, json, data_dir)


@app.command("set")
def set_limits(
    workspace_id: WorkspaceId,
    minimum_balance: Annotated[
        str | None,
        typer.Option(
            metavar="A",
            help=f"Below this balance (USD) AI is disabled; {format_usd(MINIMUM_BALANCE_DEFAULT)} for a new workspace.",
        ),
    ] = None,
    low_balance: Annotated[
        str | None,
        typer.Option(
            metavar="A",
            help=f"Below this balance (USD) there is a warning; {format_usd(LOW_BALANCE_DEFAULT)} for a new workspace.",
        ),
    ] = None,
    zone: Annotated[
        str | None,
        typer.Option(metavar="Z", help="Time zone in which the months of its statements begin; UTC at first."),
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Set a workspace's limits, creating it if need be; its flag follows at once.

    What is not given stays as it is. A time zone counts from the present month on: months that are over keep theirs.
    """
    from taximeter_cli import session
    from taximeter_db import workspaces
    from taximeter_db.statements import reading
    from taximeter_worker.consume.batch import policy_of

    minimum, low = _limit(minimum_balance, "--minimum-balance"), _limit(low_balance, "--low-balance")
    if minimum is not None and low is not None and minimum > low:
        raise UsageError(
            "--minimum-balance must not be above --low-balance: the minimum is where AI stops, the other where the"
            " warning begins."
        )
    known = session.settings(data_dir)
    with session.booking(known) as conn:
        state = workspaces.set_limits(conn, workspace_id, minimum=minimum, low=low, policy=policy_of(known))
        session.write_flags(known, conn, [state])
        if zone is not None:
            reading.set_zone(conn, workspace_id, zone, by=session.person())
        _print(workspaces.get(conn, workspace_id), json, data_dir)


def _limit(text: str | None, option: str) -> int | None:
    from taximeter_db.errors import AmountError
    from taximeter_db.money import parse_usd

    try:
        return None if text is None else parse_usd(text)
    except AmountError as error:
        raise UsageError(f"{option}: {error}") from error


@app.command("readers")
def readers(
    workspace_id: WorkspaceId,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="MEMBER", help="Let a member of your staff look, named as sign-in does; repeatable."),
    ] = None,
    remove: Annotated[list[str] | None, typer.Option(metavar="MEMBER", help="No longer; repeatable.")] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Say who of the staff may look at a workspace's AI Tracking, and change it; each change is logged with who made it.

    Owners do the same on the page, under Settings.
    """
    from taximeter_cli import session
    from taximeter_db import access, workspaces

    for member in (*(allow or ()), *(remove or ())):
        if not member.strip() or not member.isprintable() or len(member) > access.MEMBER_MAX:
            raise UsageError(f"a member is named by 1 to {access.MEMBER_MAX} printable characters")
    with session.database(data_dir) as conn:
        workspaces.get(conn, workspace_id)
        with conn.transaction():
            for member in allow or ():
                access.allow(conn, workspace_id, member.strip(), session.person())
            for member in remove or ():
                access.disallow(conn, workspace_id, member.strip(), session.person())
        members = access.readers(conn, workspace_id)
    if json:
        console.emit({"workspace_id": workspace_id, "readers": members})
    else:
        console.say("\n".join(members) or "Nobody of the staff.")


@app.command("erase-payloads")
def erase_payloads(
    workspace_id: WorkspaceId,
    yes: Annotated[bool, typer.Option("--yes", metavar="", help="Do not ask.")] = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Destroy inputs, outputs and metadata of all of a workspace's events so far, for ever; what they cost stays.

    Quarantined events of the workspace are emptied and dismissed. It is logged with who did it.
    """
    from taximeter_cli import session
    from taximeter_db import workspaces
    from taximeter_db.crypto import erasure

    with session.database(data_dir) as conn:
        details = workspaces.get(conn, workspace_id)
        if not yes:
            question = (
                f"Destroy the contents of all {details.usage_count:,} usages of {workspace_id} for ever? Backups made"
                " before still hold them."
            )
            typer.confirm(question, abort=True, err=True)
        erased = erasure.erase(conn, workspace_id, by=session.person())
    if json:
        console.emit(
            {"workspace_id": workspace_id, **{name: getattr(erased, name) for name in erased.__struct_fields__}}
        )
        return
    console.say(
        f"Destroyed {console.counted(erased.keys, 'data key')}; overwrote the contents of"
        f" {console.counted(erased.usages, 'usage')} that were not encrypted and of"
        f" {console.counted(erased.quarantined, 'quarantined event')}. The cost record stays."
    )


def credit(
    workspace_id: WorkspaceId,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="USD, such as 25.00.", show_default=False)],
    payment_id: Annotated[
        str,
        typer.Option(
            "--id", metavar="PAYMENT_ID", help="Your id of this payment; no id is credited twice.", show_default=False
        ),
    ],
    kind: Annotated[str, typer.Option(metavar="K", help=KIND_HELP)] = "top_up",
    reference: Annotated[str | None, typer.Option(metavar="R", help="The payment provider's reference.")] = None,
    concerned: Annotated[
        str | None,
        typer.Option(
            "--payment", metavar="PAYMENT_ID", help="The payment that a clawback, reinstated or expiry concerns."
        ),
    ] = None,
    note: Annotated[str | None, typer.Option(metavar="N", help="A remark that stays with the payment.")] = None,
    expires: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Of a promo: until when it can be used, such as 2026-12-31T22:00:00Z."),
    ] = None,
    priority: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of promos that expire at once, the lowest number is used first; 0 to 1000."),
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Credit a payment to a workspace, at once and exactly once.

    A clawback and an expiry are negative, an adjustment may be; every other kind adds to the balance, a refund too. The same
    id with the same content again changes nothing; with other content it is rejected.
    """
    from taximeter_cli import payments, session
    from taximeter_db.ledger import booking
    from taximeter_db.ledger.context import BookingContext
    from taximeter_worker.consume.batch import policy_of

    given = {"reference": reference, "payment_id": concerned}
    transaction = {name: text for name, text in given.items() if text is not None}
    payment = payments.build(
        workspace_id, amount, payment_id, kind, transaction, note=note, expires=expires, priority=priority
    )
    known = session.settings(data_dir)
    with session.booking(known) as conn:
        outcome = booking.book(conn, (), [payment], context=BookingContext(policy=policy_of(known)))
        for rejected in outcome.refused:
            raise CliError(f"the payment is not booked [{rejected.reason}]: {rejected.detail}")
        session.write_flags(known, conn, list(outcome.states.values()))
        details = _after(conn, workspace_id)
    if json:
        known_now = {} if details is None else describe(details)
        console.emit({"payment_id": payment_id, "duplicate": not outcome.payments_booked, **known_now})
        return
    if outcome.payments_booked:
        console.say(f"Booked {format_usd(payment.amount)} USD ({kind}) for {workspace_id}.")
    else:
        console.say(f"Payment {payment_id} was booked before; nothing has changed.")
    if details is not None:
        ai = "enabled" if details.enabled else "disabled"
        console.say(f"Balance {format_usd(details.balance)} USD, {details.status}, AI {ai}.")


def _after(conn: Connection[Any], workspace_id: str) -> WorkspaceDetails | None:
    """The workspace after a change that is committed; None where the database went away since: the change stands."""
    import psycopg

    from taximeter_db import workspaces

    try:
        return workspaces.get(conn, workspace_id)
    except psycopg.Error:
        console.note(f"The balance cannot be read any more; `taximeter workspace show {workspace_id}` shows it later.")
        return None
