"""`taximeter prices`: what things cost, since when, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taximeter_cli.options import DataDir, Json

app = typer.Typer(no_args_is_help=True, help="The price book: what things cost, since when, and why.")

CATALOGUE = "genai-prices"

Tool = Annotated[str | None, typer.Option("--tool", metavar="T", help="The tool, as events name it.")]
Provider = Annotated[str | None, typer.Option("--provider", metavar="P", help="The provider, such as openai.")]
Model = Annotated[str | None, typer.Option("--model", metavar="M", help="The provider's model, such as gpt-4o.")]


@app.command("set")
def set_one(
    unit: Annotated[str, typer.Option("--unit", metavar="U", help="What is counted, such as input_tokens.")],
    price: Annotated[str, typer.Option("--price", metavar="A", help="USD, such as 2.50. 0 makes it free.")],
    tool: Tool = None,
    provider: Provider = None,
    model: Model = None,
    per: Annotated[str, typer.Option("--per", metavar="N", help="The price is for so many units.")] = "1",
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIME",
            help="From when on (2026-12-01 or 2026-12-01T00:00:00Z). Left out: from now, or since ever if it is the"
            " first price of its kind.",
        ),
    ] = None,
    backdated: Annotated[
        bool, typer.Option("--backdated", metavar="", help="Allow a start at which another price was already in force.")
    ] = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Set a price for a tool, or for a provider's model."""
    from taximeter_cli import prices_work

    if tool is not None and (provider is not None or model is not None):
        raise typer.BadParameter("give either --tool, or --provider and --model", param_hint="--tool")
    prices_work.set_one((tool, provider, model), unit, price, per, start, backdated, data_dir, json)


@app.command("list")
def list_prices(
    tool: Tool = None,
    provider: Provider = None,
    model: Model = None,
    unit: Annotated[str | None, typer.Option("--unit", metavar="U", help="Only this unit.")] = None,
    history: Annotated[
        bool, typer.Option("--history", metavar="", help="Past prices too, not only present and future ones.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many rows in the table; --json shows all.")] = 50,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """List prices in force and to come."""
    from taximeter_cli import prices_work

    prices_work.list_prices((tool, provider, model), unit, history, limit, data_dir, json)


@app.command("import")
def import_book(
    source: Annotated[
        str, typer.Argument(metavar=f"{CATALOGUE}|FILE", help="The installed catalogue, or a file of `prices export`.")
    ] = CATALOGUE,
    dry_run: Annotated[bool, typer.Option("--dry-run", metavar="", help="Only show what would change.")] = False,
    backdated: Annotated[
        bool,
        typer.Option(
            "--backdated", metavar="", help="Allow a file's prices to begin where others were already in force."
        ),
    ] = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Import prices; what is in the book already is left as it is, so a second import adds nothing."""
    from taximeter_cli import prices_work

    if not prices_work.import_book(None if source == CATALOGUE else Path(source), dry_run, backdated, data_dir, json):
        raise typer.Exit(1)


@app.command("export")
def export(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Where to; left out: to stdout.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Write the whole book, history and aliases included, as a file that `prices import` reads back identically."""
    from taximeter_cli import prices_work

    prices_work.export(file, data_dir)


@app.command("explain")
def explain(
    file: Annotated[
        str | None,
        typer.Argument(metavar="[FILE]", help="An event, an array of events, or one event a line; - reads stdin."),
    ] = None,
    workspace: Annotated[
        str | None, typer.Option("--workspace", metavar="W", help="Workspace of a booked usage.")
    ] = None,
    event: Annotated[str | None, typer.Option("--event", metavar="ID", help="Event id of a booked usage.")] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Show how a cost comes about: each pool, its price and since when, the sum, the rounding.

    Events are priced by the present book at their own time; a booked usage by the book that priced it.
    """
    from taximeter_cli import prices_explain

    if workspace is not None and event is not None and file is None:
        prices_explain.explain_booked(workspace, event, data_dir, json)
    elif file is not None and workspace is None and event is None:
        if not prices_explain.explain_events(file, data_dir, json):
            raise typer.Exit(1)
    else:
        raise typer.BadParameter("give a FILE of events (- for stdin), or --workspace and --event of a booked usage")
