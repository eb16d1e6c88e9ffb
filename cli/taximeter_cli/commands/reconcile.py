"""`taximeter reconcile`: a provider's bill against the log."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from taximeter_cli import console
from taximeter_cli.errors import UsageError
from taximeter_cli.options import DataDir, Json

if TYPE_CHECKING:
    from taximeter_worker.bills.compare import Reason, Row


def reconcile(
    provider: Annotated[str, typer.Argument(metavar="PROVIDER", help="openai, anthropic, aws or google.")],
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="The provider's exports.", exists=True, dir_okay=False)
    ],
    names: Annotated[
        list[str] | None,
        typer.Option("--provider", metavar="NAME", help="What usages name as their provider, where it is another."),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="BILLED=METERED", help="What a billed model is called in the log."),
    ] = None,
    rounding: Annotated[
        str | None, typer.Option(metavar="USD", help="What a billed line may be off by.", show_default="0.005")
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Show metered against billed per model and day, and why they differ; exit code 1 where more than rounding does."""
    from taximeter_cli import session
    from taximeter_worker.bills.compare import ROUNDING, compare
    from taximeter_worker.bills.providers import PROVIDERS

    if (known := PROVIDERS.get(provider)) is None:
        raise UsageError(f"{provider[:40]!r} is not one of {', '.join(PROVIDERS)}.")
    lines = [line for file in files for line in known.read(file.read_text(encoding="utf-8-sig"))]
    allowed = ROUNDING if rounding is None else _amount(rounding)
    with session.database(data_dir) as conn:
        rows = compare(conn, lines, names or list(known.names), models=_mapped(models or []), rounding=allowed)
    agrees = all(reason.kind == "rounding" for row in rows for reason in row.reasons)
    _tell(rows, agrees=agrees, json=json)
    if not agrees:
        raise typer.Exit(1)


def _amount(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        raise UsageError(f"--rounding: {text[:40]!r} is not an amount of USD.")
    return amount


def _mapped(given: list[str]) -> dict[str, str]:
    pairs = {}
    for one in given:
        billed, equals, metered = one.partition("=")
        if not (billed and equals and metered):
            raise UsageError(f"--model: write BILLED=METERED, not {one[:80]!r}.")
        pairs[billed] = metered
    return pairs


def _tell(rows: list[Row], *, agrees: bool, json: bool) -> None:
    metered = sum((row.metered or Decimal(0) for row in rows), Decimal(0))
    billed = sum((row.billed or Decimal(0) for row in rows), Decimal(0))
    if json:
        totals = {"metered": _usd(metered), "billed": _usd(billed), "difference": _usd(billed - metered)}
        console.emit({"ok": agrees, **totals, "rows": [_document(row) for row in rows]})
        return
    columns = ("day", "model", "usages", "metered", "billed", "difference", "why")
    table = [
        (row.day, row.model, f"{row.usages:,}", _usd(row.metered), _usd(row.billed), _usd(row.difference), _why(row))
        for row in rows
    ]
    console.table(columns, table, right=("usages", "metered", "billed", "difference"))
    console.say(f"Metered {_usd(metered)} USD, billed {_usd(billed)} USD: {_usd(billed - metered)} USD more billed.")


def _document(row: Row) -> dict[str, Any]:
    reasons = [msgspec.structs.asdict(reason) for reason in row.reasons]
    return {**msgspec.structs.asdict(row), "day": row.day.isoformat(), "difference": row.difference, "reasons": reasons}


def _why(row: Row) -> str:
    return "; ".join(map(_reason, row.reasons))


def _reason(reason: Reason) -> str:
    text = f"{reason.kind.replace('_', ' ')} {_usd(reason.amount)}".rstrip()
    if reason.unit is None:
        return text
    return f"{text} ({reason.unit}: {reason.billed:,f} billed, {reason.metered:,f} metered)"


def _usd(amount: Decimal | None) -> str:
    return "" if amount is None else format(amount.normalize() + 0, "f")
