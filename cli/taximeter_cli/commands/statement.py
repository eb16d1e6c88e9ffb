"""`taximeter statement` and `taximeter receipt`: a month's account of a workspace, and the receipt of a payment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taximeter_cli import console
from taximeter_cli.errors import CliError, UsageError
from taximeter_cli.options import DataDir, Json, WorkspaceId
from taximeter_db.money import format_usd

if TYPE_CHECKING:
    from psycopg import Connection

    from taximeter_db.statements.terms import Line, Statement

LISTED_MAX = 120
"""Months that the list shows: ten years."""
Pdf = Annotated[Path | None, typer.Option("--pdf", metavar="FILE", help="Write it as PDF (needs taximeter[pdf]).")]


def statement(
    workspace_id: WorkspaceId,
    month: Annotated[
        str | None, typer.Option(metavar="YYYY-MM", help="Which month; without it, the months that there are.")
    ] = None,
    pdf: Pdf = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write its rows as CSV.")] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Show a month's account: opening balance + payments - usage = closing balance, and usage by tool, model and user.

    A month that is over is closed by the first who asks, or by a worker: it gets a number and never changes again. Months begin
    in the workspace's time zone, see `taximeter workspace set --zone`.
    """
    from taximeter_cli import session
    from taximeter_db.errors import SettingsError
    from taximeter_db.statements import documents, reading, terms
    from taximeter_db.workspaces import check_id

    try:
        wanted = None if month is None else terms.parse_month(month)
    except SettingsError as error:
        raise UsageError(f"--month: {error}") from error
    if wanted is None and (pdf or csv):
        raise UsageError("--pdf and --csv take one month: give it with --month YYYY-MM")
    with session.database(data_dir) as conn:
        check_id(workspace_id)
        if wanted is None:
            _list(_months(conn, workspace_id), workspace_id, json=json)
            return
        found = reading.read(conn, workspace_id, wanted)
        if csv is not None:
            _write(csv, documents.as_csv(found))
        if pdf is not None:
            _write(pdf, reading.as_pdf(conn, found))
    if json:
        console.emit(documents.body(found))
        return
    _show(found)


def _months(conn: Connection[Any], workspace_id: str) -> list[Statement]:
    from taximeter_db.statements import reading

    running = reading.present(conn, workspace_id)
    closed = reading.closed(conn, workspace_id, limit=LISTED_MAX)
    return closed if running is None else [running, *closed]


def _list(months: list[Statement], workspace_id: str, *, json: bool) -> None:
    from taximeter_db.statements import documents

    if json:
        console.emit([documents.head(one) for one in months])
        return
    if not months:
        console.say(f"Workspace {workspace_id} has no statements: nothing was ever booked for it.")
        return
    console.table(
        ["Month", "Number", "Opening, USD", "Payments, USD", "Usage, USD", "Closing, USD"],
        [
            [
                one.period.name,
                one.period.number if one.closed_at else "runs",
                *map(format_usd, (one.opening, one.payments, one.usage, one.closing)),
            ]
            for one in months
        ],
        right=["Opening, USD", "Payments, USD", "Usage, USD", "Closing, USD"],
    )


def _show(found: Statement) -> None:
    period = found.period
    state = (
        f"closed {console.moment(found.closed_at)}, number {period.number}"
        if found.closed_at
        else "not final: the month runs"
    )
    console.facts(
        [
            ("Statement", f"{found.title if found.closed_at else period.name} of workspace {found.workspace_id}"),
            ("State", state),
            ("From", f"{console.moment(period.starts_at)}, a month in {period.zone}"),
            ("To", console.moment(period.ends_at)),
            ("Opening", f"{format_usd(found.opening)} USD"),
            ("+ Payments", f"{format_usd(found.payments)} USD in {console.counted(found.payment_count, 'payment')}"),
            ("- Usage", f"{format_usd(found.usage)} USD in {console.counted(found.usages, 'usage')}"),
            ("= Closing", f"{format_usd(found.closing)} USD"),
        ]
    )
    lines = found.lines
    if lines.kinds:
        console.say("")
        console.table(
            ["Payments", "Count", "USD"],
            [[kind.kind, f"{kind.count:,}", format_usd(kind.amount)] for kind in lines.kinds],
            right=["Count", "USD"],
        )
    for heading, split in (("Tool", lines.tools), ("Model", lines.models), ("User", lines.users)):
        if split:
            console.say("")
            _table(heading, split)


def _table(heading: str, lines: tuple[Line, ...]) -> None:
    from taximeter_db.statements.documents import words

    console.table(
        [heading, "Usages", "USD"],
        [[words(line), f"{line.usages:,}", format_usd(line.cost)] for line in lines],
        right=["Usages", "USD"],
    )


def receipt(
    workspace_id: WorkspaceId,
    payment_id: Annotated[str, typer.Argument(metavar="PAYMENT_ID", help="The payment's id.", show_default=False)],
    pdf: Pdf = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Show the receipt of a payment, or write it as PDF."""
    from taximeter_cli import session
    from taximeter_db.queries import payments
    from taximeter_db.statements import pdf as pdfs
    from taximeter_db.statements import reading
    from taximeter_db.workspaces import check_id

    with session.database(data_dir) as conn:
        row = payments.find(conn, check_id(workspace_id), payment_id)
        if row is None:
            raise CliError(f"workspace {workspace_id} has no payment {payment_id[:255]!r}")
        if pdf is not None:
            _write(pdf, pdfs.receipt(workspace_id, row, reading.zone(conn, workspace_id)))
    amounts = {"amount": row.amount, "balance_before": row.balance_before, "balance_after": row.balance_after}
    shown = {
        "workspace_id": workspace_id,
        "payment_id": row.payment_id,
        "seq": row.seq,
        "kind": row.kind,
        **{name: format_usd(pico) for name, pico in amounts.items()},
        "transaction": row.transaction,
        "note": row.note,
        "occurred_at": row.occurred_at,
        "recorded_at": row.recorded_at,
    }
    if json:
        console.emit(shown)
        return
    console.facts(
        [
            ("Payment", f"{row.payment_id} of workspace {workspace_id}, number {row.seq:,}"),
            ("Kind", payments.KINDS[row.kind]),
            ("Amount", f"{format_usd(row.amount)} USD"),
            ("Balance", f"{format_usd(row.balance_before)} USD before, {format_usd(row.balance_after)} USD after"),
            ("Booked", console.moment(row.recorded_at)),
            *((name.replace("_", " ").capitalize(), text) for name, text in (row.transaction or {}).items()),
            *([("Note", row.note)] if row.note else []),
        ]
    )


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise CliError(
            f"{path} cannot be written: {error.strerror}. Name a file in a folder that you may write to."
        ) from error
    console.note(f"Wrote {path} ({len(data):,} bytes).")
