"""`taximeter prices`: what things cost, since when, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taximeter_cli.options import DataDir, Json, workspace_id

app = typer.Typer(no_args_is_help=True, help="The price book: what things cost, since when, and why.")

CATALOGUE = "genai-prices"

Tool = Annotated[str | None, typer.Option("--tool", metavar="T", help="The tool, as events name it.")]
Provider = Annotated[str | None, typer.Option("--provider", metavar="P", help="The provider, such as openai.")]
Model = Annotated[str | None, typer.Option("--model", metavar="M", help="The provider's model, such as gpt-4o.")]


Workspace = Annotated[
    str | None, typer.Option("--workspace", metavar="W", help="Only this workspace.", callback=workspace_id)
]
Since = Annotated[str, typer.Option("--since", metavar="TIME", help="Usages that happened at this time or later.")]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Usages that happened before this time.")]


@app.command("set")
def set_one(
    unit: Annotated[
        str | None, typer.Option("--unit", metavar="U", help="What is counted, such as input_tokens.")
    ] = None,
    price: Annotated[
        str | None, typer.Option("--price", metavar="A", help="USD, such as 2.50. 0 makes it free.")
    ] = None,
    tool: Tool = None,
    provider: Provider = None,
    model: Model = None,
    workspace: Annotated[
        str | None,
        typer.Option("--workspace", metavar="W", help="For a multiplier: the workspace whose usages it applies to."),
    ] = None,
    per: Annotated[str, typer.Option("--per", metavar="N", help="How many units the price is for.")] = "1",
    charge: Annotated[
        str, typer.Option("--charge", help="flat, package (started blocks of N), graduated or volume.")
    ] = "flat",
    tier: Annotated[
        list[str] | None,
        typer.Option(metavar="N=A", help="Beyond N the price is A. Of a flat price, N input tokens of the event."),
    ] = None,
    hours: Annotated[
        list[str] | None,
        typer.Option(metavar="HH:MM-HH:MM=A", help="Every day between these times, UTC, the price is A."),
    ] = None,
    per_event: Annotated[
        str | None, typer.Option(metavar="A", help="A charge for each event, beside its units.")
    ] = None,
    multiplier: Annotated[str | None, typer.Option(metavar="X", help="Markup (1.2) or discount (0.9).")] = None,
    minimum: Annotated[str | None, typer.Option(metavar="A", help="The least that an event costs.")] = None,
    maximum: Annotated[str | None, typer.Option(metavar="A", help="The most that an event costs.")] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIME",
            help="From when on (2026-12-01 or 2026-12-01T00:00:00Z; or ever: from the beginning). Default: from now, or from"
            " the beginning for the first price of its kind.",
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Until when. Default: until the next one begins.")
    ] = None,
    backdated: Annotated[
        bool, typer.Option("--backdated", metavar="", help="Allow a start at which another price was already in force.")
    ] = False,
    correct: Annotated[
        bool,
        typer.Option(
            "--correct", metavar="", help="Replace the price that begins at the same moment (or the one in force)."
        ),
    ] = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Set a price for a tool, a provider's model, or both; or a rule for whole events."""
    from taximeter_cli.commands.prices import set_price

    rules = {"@fee": per_event, "@multiplier": multiplier, "@minimum": minimum, "@maximum": maximum}
    given = [(name, amount) for name, amount in rules.items() if amount is not None]
    if unit is not None and price is not None:
        given.append((unit, price))
    if len(given) != 1 or (unit is None) != (price is None):
        raise typer.BadParameter(
            "give --unit and --price, or one of --per-event, --multiplier, --minimum, --maximum", param_hint="--unit"
        )
    names = (tool, provider, model, workspace)
    wanted = set_price.wanted(set_price.Words(names, *given[0], per, charge, tier or [], hours or [], until))
    set_price.store(wanted, start, backdated, correct, data_dir, json)


@app.command("policy")
def policy(
    rule: Annotated[str, typer.Argument(metavar="quarantine|estimate|free", help="What becomes of its events.")],
    tool: Annotated[str, typer.Option("--tool", metavar="T", help="The tool, as events name it.")],
    provider: Annotated[
        str | None, typer.Option("--provider", metavar="P", help="Estimate by this provider's …")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="M", help="… model.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="From when on; as with `prices set`.")
    ] = None,
    backdated: Annotated[bool, typer.Option("--backdated", metavar="", help="As with `prices set`.")] = False,
    correct: Annotated[bool, typer.Option("--correct", metavar="", help="As with `prices set`.")] = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Set what happens to a tool's events that have no price: they wait, are estimated (and marked so), or are free."""
    from taximeter_cli.commands.prices import set_price

    set_price.store(set_price.policy(tool, rule, provider, model), start, backdated, correct, data_dir, json)


@app.command("missing")
def missing(data_dir: DataDir = None, json: Json = False) -> None:
    """Show what waits in quarantine for a price: by tool, model and unit, how many events, since when."""
    from taximeter_cli.commands.prices import missing

    missing.show(data_dir, json)


@app.command("reprice")
def reprice(
    since: Since,
    until: Until = None,
    tool: Tool = None,
    workspace: Workspace = None,
    post: Annotated[
        bool, typer.Option("--post", metavar="", help="Book the adjustments. Default: only show them.")
    ] = False,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Why; kept with each adjustment. Needed for --post.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most workspaces in the table; --json shows all.")] = 50,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Show what booked usages would cost under the current price book; with --post, adjust the balances.

    History stays as it is: each workspace gets one payment of kind adjustment. What was adjusted once is not adjusted again.
    """
    from taximeter_cli.commands.prices import reprice

    if post and not (reason and reason.strip()):
        raise typer.BadParameter("say why: the reason stays with each adjustment", param_hint="--reason")
    selection = reprice.selection(since, until, tool, workspace)
    if post:
        reprice.post(selection, reason or "", limit, data_dir, json)
    else:
        reprice.preview(selection, limit, data_dir, json)


@app.command("simulate")
def simulate(
    source: Annotated[
        str, typer.Argument(metavar="FILE", help="A file of `prices export`, genai-prices, or litellm's JSON.")
    ],
    since: Since,
    until: Until = None,
    tool: Tool = None,
    workspace: Workspace = None,
    limit: Annotated[int, typer.Option(min=1, help="Most rows in the table; --json shows all.")] = 50,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Show what the usages of a period would have cost under another book, by tool and workspace. Changes nothing."""
    from taximeter_cli.commands.prices import reprice

    chosen = reprice.selection(since, until, tool, workspace)
    reprice.simulate(source, chosen, limit, data_dir, json)


@app.command("diff")
def diff(
    one: Annotated[
        str, typer.Argument(metavar="A", help="book, genai-prices, a file of `prices export`, or litellm's.")
    ],
    other: Annotated[str, typer.Argument(metavar="B", help="The same.")],
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="Compare the prices of this time. Default: now.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most differences shown; --json shows all.")] = 50,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Compare two catalogues: counts by provider, and every price that differs."""
    from taximeter_cli.commands.prices import diff

    diff.show(one, other, at, limit, data_dir, json)


@app.command("list")
def list_prices(
    tool: Tool = None,
    provider: Provider = None,
    model: Model = None,
    unit: Annotated[str | None, typer.Option("--unit", metavar="U", help="Only this unit.")] = None,
    history: Annotated[bool, typer.Option("--history", metavar="", help="Include past prices.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Most rows in the table; --json shows all.")] = 50,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """List current and future prices."""
    from taximeter_cli.commands.prices import book

    book.list_prices((tool, provider, model), unit, history, limit, data_dir, json)


@app.command("import")
def import_book(
    source: Annotated[
        str,
        typer.Argument(
            metavar=f"{CATALOGUE}|litellm|FILE",
            help="The installed catalogue, litellm's with its FILE, or a file of `prices export`.",
        ),
    ] = CATALOGUE,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="litellm's published JSON.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", metavar="", help="Only show what would change.")] = False,
    backdated: Annotated[
        bool,
        typer.Option(
            "--backdated", metavar="", help="Allow a file's prices to begin where others were already in force."
        ),
    ] = False,
    correct: Annotated[
        bool,
        typer.Option("--correct", metavar="", help="Let a file's prices replace those that begin at the same moment."),
    ] = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Import prices; what is in the book already is left as it is, so a second import adds nothing."""
    if (file is not None) != (source == "litellm"):
        raise typer.BadParameter("`prices import litellm FILE` takes a file; the others take none", param_hint="FILE")
    from taximeter_cli.commands.prices import book

    offered = book.offered_by(source, file, backdated=backdated, correct=correct)
    if not book.import_book(*offered, dry_run, data_dir, json):
        raise typer.Exit(1)


@app.command("export")
def export(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Where to write it. Default: stdout.")] = None,
    data_dir: DataDir = None,
    json: Annotated[
        bool,
        typer.Option(
            "--json", metavar="", help="With FILE: report as JSON what was written. The book itself is always JSON."
        ),
    ] = False,
) -> None:
    """Write the whole book, history and aliases included, as a file that `prices import` reads back identically.

    The file is one JSON document, one price a line.
    """
    from taximeter_cli.commands.prices import book

    book.export(file, data_dir, json)


@app.command("explain")
def explain(
    file: Annotated[
        str | None,
        typer.Argument(metavar="[FILE]", help="An event, an array of events, or one event a line; - reads stdin."),
    ] = None,
    workspace: Annotated[
        str | None,
        typer.Option("--workspace", metavar="W", help="Workspace of a booked usage.", callback=workspace_id),
    ] = None,
    event: Annotated[str | None, typer.Option("--event", metavar="ID", help="Event id of a booked usage.")] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Show how a cost is calculated: each pool, its price and start, the sum, the rounding.

    Events are priced by the current book at their own time; a booked usage by the revision that priced it.
    """
    from taximeter_cli.commands.prices import explain

    if workspace is not None and event is not None and file is None:
        explain.explain_booked(workspace, event, data_dir, json)
    elif file is not None and workspace is None and event is None:
        if not explain.explain_events(file, data_dir, json):
            raise typer.Exit(1)
    else:
        raise typer.BadParameter("give a FILE of events (- for stdin), or --workspace and --event of a booked usage")
