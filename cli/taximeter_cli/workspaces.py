"""`taximeter workspace` and `taximeter credit`: settings, balances and payments of one workspace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from taximeter_cli import console
from taximeter_cli.errors import CliError, UsageError
from taximeter_cli.options import DataDir, Json, WorkspaceId

if TYPE_CHECKING:
    from taximeter_db.workspaces import WorkspaceDetails

app = typer.Typer(no_args_is_help=True, help="A workspace's limits, balance, status and totals.")


def describe(details: WorkspaceDetails) -> dict[str, Any]:
    """A workspace for JSON; the names are those of the view ``workspace_balance``."""
    from taximeter_db.money import format_usd

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


def _print(details: WorkspaceDetails, json: bool) -> None:
    if json:
        console.emit(describe(details))
        return
    from taximeter_db.money import format_usd

    console.facts(
        [
            ("Workspace", details.workspace_id),
            ("Balance", f"{format_usd(details.balance)} USD"),
            ("Status", f"{details.status} (AI is {'enabled' if details.enabled else 'disabled'})"),
            ("Minimum balance", f"{format_usd(details.minimum)} USD (below it AI is disabled)"),
            ("Low-balance threshold", f"{format_usd(details.low)} USD (below it there is a warning)"),
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
    _print(details, json)


@app.command("set")
def set_limits(
    workspace_id: WorkspaceId,
    minimum_balance: Annotated[
        str | None,
        typer.Option(metavar="A", help="Below this balance (USD) AI is disabled; -0.12 for a new workspace."),
    ] = None,
    low_balance: Annotated[
        str | None,
        typer.Option(metavar="A", help="Below this balance (USD) there is a warning; 0 for a new workspace."),
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Set a workspace's limits, creating it if need be; its flag follows at once.

    A limit that is not given stays as it is.
    """
    from taximeter_cli import session
    from taximeter_db import workspaces
    from taximeter_worker.booker import policy_of

    minimum, low = _limit(minimum_balance, "--minimum-balance"), _limit(low_balance, "--low-balance")
    if minimum is not None and low is not None and minimum > low:
        raise UsageError(
            "--minimum-balance must not be above --low-balance: the minimum is where AI stops, the other where the"
            " warning begins."
        )
    known = session.settings(data_dir)
    default = policy_of(known)
    with session.booking(known) as conn:
        state = workspaces.set_limits(
            conn, workspace_id, minimum=minimum, low=low, default_minimum=default.minimum, default_low=default.low
        )
        session.write_flags(known, conn, [state])
        _print(workspaces.get(conn, workspace_id), json)


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
    from taximeter_db import workspaces
    from taximeter_db.reading import access

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
        found = access.readers(conn, workspace_id)
    if json:
        console.emit({"workspace_id": workspace_id, "readers": found})
    else:
        console.say("\n".join(found) or "Nobody of the staff.")


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
    from taximeter_db import erasing, workspaces

    with session.database(data_dir) as conn:
        details = workspaces.get(conn, workspace_id)
        if not yes:
            question = (
                f"Destroy the contents of all {details.usage_count:,} usages of {workspace_id} for ever? Backups made"
                " before still hold them."
            )
            typer.confirm(question, abort=True, err=True)
        erased = erasing.erase(conn, workspace_id, by=session.person())
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
    kind: Annotated[str, typer.Option(metavar="K", help="top_up, promo, refund or adjustment.")] = "top_up",
    reference: Annotated[str | None, typer.Option(metavar="R", help="The payment provider's reference.")] = None,
    note: Annotated[str | None, typer.Option(metavar="N", help="A remark that stays with the payment.")] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Credit a payment to a workspace, at once and exactly once.

    An adjustment (--kind adjustment) may be negative. The same id with the same content again changes nothing; with
    other content it is refused.
    """
    from taximeter_cli import payments, session
    from taximeter_db import ledger, workspaces
    from taximeter_db.money import format_usd
    from taximeter_worker.booker import policy_of

    payment = payments.build(workspace_id, amount, payment_id, kind, reference, note)
    known = session.settings(data_dir)
    with session.booking(known) as conn:
        outcome = ledger.book(conn, (), [payment], policy=policy_of(known))
        for refused in outcome.refused:
            raise CliError(f"the payment is not booked [{refused.reason}]: {refused.detail}")
        session.write_flags(known, conn, list(outcome.states.values()))
        details = workspaces.get(conn, workspace_id)
    if json:
        console.emit({"payment_id": payment_id, "duplicate": not outcome.payments_booked, **describe(details)})
        return
    if outcome.payments_booked:
        console.say(f"Booked {format_usd(payment.amount)} USD ({kind}) for {workspace_id}.")
    else:
        console.say(f"Payment {payment_id} was booked before; nothing has changed.")
    console.say(
        f"Balance {format_usd(details.balance)} USD, {details.status}, AI {'enabled' if details.enabled else 'disabled'}."
    )
