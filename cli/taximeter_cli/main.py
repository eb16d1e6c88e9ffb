"""The `taximeter` command and its commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from taximeter_cli import env_file, guard, odd_variables
from taximeter_cli.commands import (
    audit,
    budgets,
    dashboard,
    doctor,
    drain,
    gateway,
    instance,
    keys,
    notify,
    producers,
    publish,
    quarantine,
    rebuild,
    reconcile,
    statement,
    tokens,
    upkeep,
    version,
    workspaces,
)
from taximeter_cli.commands.prices import app as prices
from taximeter_cli.streams import ReaderGoneError


class _Commands(TyperGroup):
    """The commands; where one meets an option that it does not know, it says how to give an argument that looks like one."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if type(error).__name__ == "NoSuchOption":  # by its name: its module depends on the version of typer
                _explain_dashes(error)
            raise


def _explain_dashes(error: Any) -> None:
    parameters = error.ctx.command.params
    arguments = [param.metavar or param.name.upper() for param in parameters if param.param_type_name == "argument"]
    if arguments:
        error.message += (
            f". Arguments that begin with - stand last, after --: {error.ctx.command_path} -- {' '.join(arguments)}"
        )


app = typer.Typer(
    name="taximeter",
    cls=_Commands,
    help="Prepaid metering for AI usage. `taximeter up` runs the whole system on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(instance.up)
app.command("env")(instance.env)
app.command("worker")(upkeep.worker)
app.command("dashboard")(dashboard.dashboard)
app.command("gateway")(gateway.gateway)
app.command("migrate")(upkeep.migrate)
app.add_typer(workspaces.app, name="workspace")
app.add_typer(budgets.app, name="budget")
# unknown options are taken as arguments, so that a negative amount is one; no -h, which -dash would be taken to hold
app.command("credit", context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})(
    workspaces.credit
)
app.command("statement")(statement.statement)
app.command("receipt")(statement.receipt)
app.command("publish")(publish.publish)
app.add_typer(prices.app, name="prices")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(upkeep.flags, name="flags")
app.add_typer(upkeep.rollups, name="rollups")
app.add_typer(keys.app, name="keys")
app.add_typer(notify.app, name="notify")
app.add_typer(producers.app, name="producers")
app.add_typer(tokens.app, name="tokens")
app.command("verify")(audit.verify)
app.command("checkpoint")(audit.checkpoint)
app.command("drain")(drain.drain)
app.command("reconcile")(reconcile.reconcile)
app.command("rebuild")(rebuild.rebuild)
app.command("doctor")(doctor.doctor)
app.command("version")(version.version)


_WITH_LOGS = {"worker", "dashboard", "gateway"}
_WITHOUT_LEDGER = {"up", "env", "publish", "version"}


class _Run:
    """How this process was asked to run."""

    debug = False


@app.callback()
def _options(
    context: typer.Context,
    show_version: Annotated[  # noqa: ARG001 -- its callback acts
        bool, typer.Option("--version", metavar="", help="Show the version.", is_eager=True, callback=version.option)
    ] = False,
    settings_file: Annotated[
        Path | None,
        typer.Option(
            "--env-file", metavar="FILE", help="Read settings from a file, NAME=value a line, without a shell."
        ),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", metavar="", help="Where a command fails, show where: for reports of faults.")
    ] = False,
) -> None:
    _Run.debug = debug
    if settings_file is not None:
        os.environ.update(env_file.read(settings_file))
    if context.invoked_subcommand not in _WITH_LOGS:  # they may have to say it as JSON
        odd_variables.tell(as_json=False)
    if context.invoked_subcommand not in _WITH_LOGS | _WITHOUT_LEDGER:
        _log_errors_only()


def _log_errors_only() -> None:
    """What the worker's functions log is for a worker's log: here the command itself says what it did."""
    import logging

    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


def run() -> int:
    """Run one command; an error becomes a sentence on stderr and exit code 1, or 2 for a usage error."""
    try:
        app(prog_name="taximeter")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except (ReaderGoneError, BrokenPipeError):
        return 0  # whoever read had enough, as `| head` has
    except Exception as error:  # noqa: BLE001 -- the outermost guard: no traceback reaches a person
        return guard.tell(error, debug=_Run.debug)
    return 0
