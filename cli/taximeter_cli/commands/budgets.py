"""`taximeter budget`: what a part of a workspace's usage may cost in a period."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from taximeter_cli import console
from taximeter_cli.errors import CliError, UsageError
from taximeter_cli.options import DataDir, Json, WorkspaceId
from taximeter_db.money import format_usd

if TYPE_CHECKING:
    from taximeter_db.budgets.reading import BudgetNow, CrossingRow
    from taximeter_db.budgets.terms import Terms

app = typer.Typer(
    no_args_is_help=True, help="Limits on what users, tools, models or tags of a workspace may cost in a period."
)
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The budget's name within the workspace.", show_default=False)
]


def describe(budget: BudgetNow) -> dict[str, Any]:
    """A budget for JSON."""
    return {
        "workspace_id": budget.terms.workspace_id,
        **budget.members(),
        "period_began_at": budget.began_at,
        "period_ends_at": budget.ends_at,
    }


def _crossing(row: CrossingRow) -> dict[str, Any]:
    return {
        "at": row.crossed_at,
        "kind": row.kind,
        "percent": row.percent,
        "spent": format_usd(row.spent),
        "limit": format_usd(row.limit),
        "cause": row.cause,
        "cause_id": row.cause_id,
    }


def _of(terms: Terms) -> str:
    given = {"user": terms.user, "tool": terms.tool, "model": terms.model}
    parts = [f"{name} {value}" for name, value in given.items() if value is not None]
    if terms.tag is not None:
        parts.append(f"tag {'='.join(terms.tag)}")
    return ", ".join(parts) or "everything"


@app.command("set")
def set_budget(
    workspace_id: WorkspaceId,
    name: Name,
    limit: Annotated[str, typer.Option(metavar="A", help="USD that may be spent in a period.", show_default=False)],
    period: Annotated[
        str,
        typer.Option(metavar="P", help="day, week, month, total, or hours:N for N rolling hours.", show_default=False),
    ],
    zone: Annotated[str, typer.Option(metavar="Z", help="Time zone in which days, weeks and months begin.")] = "UTC",
    user: Annotated[str | None, typer.Option(metavar="U", help="Only what this user costs.")] = None,
    tool: Annotated[str | None, typer.Option(metavar="T", help="Only what this tool costs.")] = None,
    model: Annotated[str | None, typer.Option(metavar="M", help="Only what this model costs.")] = None,
    tag: Annotated[str | None, typer.Option(metavar="K=V", help="Only what bears this tag.")] = None,
    soft: Annotated[bool, typer.Option("--soft", metavar="", help="Warn only; refuse no call.")] = False,
    thresholds: Annotated[
        str, typer.Option(metavar="PERCENTS", help="At which parts of the limit, in percent, it is told.")
    ] = "50,80,100",
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Set a budget, or change the one of this name. What was spent in the present period counts.

    Once the limit is used up, calls that bear all of its conditions are refused until the period ends, unless it is --soft.
    """
    from taximeter_cli import session
    from taximeter_db.budgets import setting, terms
    from taximeter_db.errors import AmountError, SettingsError
    from taximeter_db.money import parse_usd
    from taximeter_worker.consume.batch import policy_of

    try:
        kind, hours = terms.parse_period(period)
        given = terms.Terms(
            *(workspace_id, name, parse_usd(limit), kind, hours, zone, user, tool, model),
            tag=None if tag is None else terms.parse_tag(tag),
            hard=not soft,
            thresholds=_percents(thresholds),
        )
    except (AmountError, SettingsError) as error:
        raise UsageError(str(error)) from error
    known = session.settings(data_dir)
    with session.booking(known) as conn:
        state = setting.set_budget(conn, given, by=session.person(), policy=policy_of(known))
        session.write_flags(known, conn, [state])
    _show(workspace_id, name, data_dir=data_dir, json=json)


def _percents(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError("--thresholds takes whole numbers of percent with commas between them, such as 50,80,100.")
    return tuple(map(int, parts))


@app.command("list")
def list_budgets(workspace_id: WorkspaceId, data_dir: DataDir = None, json: Json = False) -> None:
    """List a workspace's budgets, and where each stands."""
    from taximeter_cli import session
    from taximeter_db.budgets import reading
    from taximeter_db.workspaces import check_id

    budgets: list[BudgetNow] = []
    with session.database(data_dir) as conn:
        check_id(workspace_id)
        while page := reading.list_budgets(conn, workspace_id, after=budgets[-1].terms.name if budgets else ""):
            budgets += page
    if json:
        console.emit([describe(budget) for budget in budgets])
        return
    if not budgets:
        console.say(f"Workspace {workspace_id} has no budgets.")
        return
    console.table(
        ["Budget", "Of", "Period", "Limit, USD", "Spent, USD", "%", "State"],
        [
            [
                *(budget.terms.name, _of(budget.terms), budget.terms.period_text, format_usd(budget.terms.limit)),
                *(format_usd(budget.spent), str(budget.percent), _state(budget)),
            ]
            for budget in budgets
        ],
    )


def _state(budget: BudgetNow) -> str:
    return budget.state if budget.terms.hard else f"{budget.state} (soft)"


@app.command("show")
def show(workspace_id: WorkspaceId, name: Name, data_dir: DataDir = None, json: Json = False) -> None:
    """Show a budget: its terms, where it stands, and when its thresholds were crossed last."""
    _show(workspace_id, name, data_dir=data_dir, json=json)


def _show(workspace_id: str, name: str, *, data_dir: Any, json: bool) -> None:
    from taximeter_cli import session
    from taximeter_db.budgets import reading
    from taximeter_db.workspaces import check_id

    with session.database(data_dir) as conn:
        budget = reading.find(conn, check_id(workspace_id), name)
        crossings = [row for row in reading.crossings(conn, workspace_id, limit=1_000) if row.name == name][:20]
    if budget is None:
        raise CliError(
            f"workspace {workspace_id} has no budget {name[:64]!r}; `taximeter budget list {workspace_id}` names them"
        )
    if json:
        console.emit(describe(budget) | {"crossings": [_crossing(row) for row in crossings]})
        return
    terms = budget.terms
    facts = [
        ("Budget", f"{terms.name} of workspace {terms.workspace_id}"),
        ("Of", _of(terms)),
        (
            "Limit",
            f"{format_usd(terms.limit)} USD, {'hard: calls are refused beyond it' if terms.hard else 'soft: it only warns'}",
        ),
        ("Period", terms.period_text + (f", in {terms.zone}" if terms.period in {"day", "week", "month"} else "")),
        ("Spent", f"{format_usd(budget.spent)} USD, {budget.percent} %, by {console.counted(budget.usages, 'usage')}"),
        ("State", budget.state),
        ("Thresholds", ", ".join(f"{percent} %" for percent in terms.thresholds)),
        ("Period ends", console.moment(budget.ends_at) or "does not end by the calendar"),
    ]
    for number, row in enumerate(crossings):
        by = f"{row.cause} {row.cause_id}" if row.cause_id else row.cause
        what = f"{console.moment(row.crossed_at)}: {row.kind} at {row.percent} %, {format_usd(row.spent)} USD, by {by}"
        facts.append(("" if number else "Crossed", what))
    console.facts(facts)


@app.command("remove")
def remove(workspace_id: WorkspaceId, name: Name, data_dir: DataDir = None, json: Json = False) -> None:
    """Remove a budget; what it refused is allowed at once."""
    from taximeter_cli import session
    from taximeter_db.budgets import setting
    from taximeter_db.workspaces import check_id

    known = session.settings(data_dir)
    with session.booking(known) as conn:
        state = setting.remove(conn, check_id(workspace_id), name, by=session.person())
        session.write_flags(known, conn, [state])
    if json:
        console.emit({"workspace_id": workspace_id, "name": name, "removed": True})
    else:
        console.say(f"Removed budget {name} of {workspace_id}.")
