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
Since = Annotated[str, typer.Option("--since", metavar="TIME", help="Usages from this time of theirs on.")]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Usages before this time of theirs.")]


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
        typer.Option("--workspace", metavar="W", help="For a multiplier: whose usages, of all tools or one."),
    ] = None,
    per: Annotated[str, typer.Option("--per", metavar="N", help="The price is for so many units.")] = "1",
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
            help="From when on (2026-12-01 or 2026-12-01T00:00:00Z; ever). Left out: from now, or since ever if it is"
            " the first price of its kind.",
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Until when. Left out: until the next one begins.")
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
    from taximeter_cli import prices_set

    rules = {"@fee": per_event, "@multiplier": multiplier, "@minimum": minimum, "@maximum": maximum}
    given = [(name, amount) for name, amount in rules.items() if amount is not None]
    if unit is not None and price is not None:
        given.append((unit, price))
    if len(given) != 1 or (unit is None) != (price is None):
        raise typer.BadParameter(
            "give --unit and --price, or one of --per-event, --multiplier, --minimum, --maximum", param_hint="--unit"
        )
    wanted = prices_set.wanted(
        (tool, provider, model, workspace), *given[0], per, charge, tier or [], hours or [], until
    )
    prices_set.store(wanted, start, backdated, correct, data_dir, json)


@app.command("policy")
def policy(
    rule: Annotated[str, typer.Argument(metavar="quarantine|estimate|free", help="What happens to its events.")],
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
    """Say what happens to a tool's events that have no price: they wait, are estimated (and marked so), or are free."""
    from taximeter_cli import prices_set

    prices_set.store(prices_set.policy(tool, rule, provider, model), start, backdated, correct, data_dir, json)


@app.command("missing")
def missing(data_dir: DataDir = None, json: Json = False) -> None:
    """Show what waits in quarantine for a price: by tool, model and unit, how many events, since when."""
    from taximeter_cli import prices_missing

    prices_missing.show(data_dir, json)


@app.command("reprice")
def reprice(
    since: Since,
    until: Until = None,
    tool: Tool = None,
    workspace: Workspace = None,
    post: Annotated[
        bool, typer.Option("--post", metavar="", help="Post the adjustments. Left out: only show them.")
    ] = False,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Why; kept with each adjustment. Needed for --post.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many workspaces in the table; --json shows all.")] = 50,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Show what booked usages would cost under the present book; with --post, adjust the balances.

    History stays as it is: each workspace gets one payment of kind adjustment. What was posted once is not posted again.
    """
    from taximeter_cli import prices_reprice

    if post and not (reason and reason.strip()):
        raise typer.BadParameter("say why: the reason stays with each adjustment", param_hint="--reason")
    selection = prices_reprice.selection(since, until, tool, workspace)
    if post:
        prices_reprice.post(selection, reason or "", limit, data_dir, json)
    else:
        prices_reprice.preview(selection, limit, data_dir, json)


@app.command("simulate")
def simulate(
    source: Annotated[
        str, typer.Argument(metavar="FILE", help="A file of `prices export`, genai-prices, or litellm's JSON.")
    ],
    since: Since,
    until: Until = None,
    tool: Tool = None,
    workspace: Workspace = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many rows in the table; --json shows all.")] = 50,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Show what the usages of a period would have cost under another book, by tool and workspace. Changes nothing."""
    from taximeter_cli import prices_reprice

    chosen = prices_reprice.selection(since, until, tool, workspace)
    prices_reprice.simulate(source, chosen, limit, data_dir, json)


@app.command("diff")
def diff(
    one: Annotated[
        str, typer.Argument(metavar="A", help="book, genai-prices, a file of `prices export`, or litellm's.")
    ],
    other: Annotated[str, typer.Argument(metavar="B", help="The same.")],
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="Compare the prices of this time; now.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many differences; --json shows all.")] = 50,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Compare two catalogues: counts by provider, and every price that differs."""
    from taximeter_cli import prices_diff

    prices_diff.show(one, other, at, limit, data_dir, json)


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
    from taximeter_cli import prices_work

    if (file is not None) != (source == "litellm"):
        raise typer.BadParameter("`prices import litellm FILE` takes a file; the others take none", param_hint="FILE")
    if not prices_work.import_book(source, file, dry_run, backdated, correct, data_dir, json):
        raise typer.Exit(1)


@app.command("export")
def export(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Where to; left out: to stdout.")] = None,
    data_dir: DataDir = None,
    json: Annotated[
        bool,
        typer.Option("--json", metavar="", help="With FILE: say as JSON what was written. The book is JSON always."),
    ] = False,
) -> None:
    """Write the whole book, history and aliases included, as a file that `prices import` reads back identically.

    The file is one JSON document, one price a line.
    """
    from taximeter_cli import prices_work

    prices_work.export(file, data_dir, json)


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
