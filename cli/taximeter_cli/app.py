"""The `taximeter` command: its commands, and how their errors reach a person."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from taximeter_cli import audit, dashboard, instance, keys, prices, publish, quarantine, upkeep, workspaces
from taximeter_cli.console import clean, note, say
from taximeter_cli.errors import UsageError


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
    arguments = [
        one.metavar or one.name.upper() for one in error.ctx.command.params if one.param_type_name == "argument"
    ]
    if arguments:
        error.message += (
            f". Arguments that begin with - stand last, after --: {error.ctx.command_path} -- {' '.join(arguments)}"
        )


def _version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        say(f"taximeter {importlib.metadata.version('taximeter')}")
        raise typer.Exit


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
app.command("migrate")(upkeep.migrate)
app.add_typer(workspaces.app, name="workspace")
# unknown options are taken as arguments, so that a negative amount is one; no -h, which -dash would be taken to hold
app.command("credit", context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})(
    workspaces.credit
)
app.command("publish")(publish.publish)
app.add_typer(prices.app, name="prices")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(upkeep.flags, name="flags")
app.add_typer(keys.app, name="keys")
app.command("verify")(audit.verify)
app.command("checkpoint")(audit.checkpoint)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", metavar="", help="Show the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    pass


_SENTENCES: dict[tuple[str, str], str] = {
    ("taximeter_cli.errors", "CliError"): "{error}",
    ("taximeter.errors", "TaximeterError"): "{error}",
    ("taximeter_db.errors", "TaximeterDbError"): "{error}",
    ("taximeter_worker.errors", "TaximeterWorkerError"): "{error}",
    ("taximeter_worker.pricing.errors", "PricingError"): "{error}",
    (
        "psycopg",
        "ProgrammingError",
    ): "the database does not have the schema of this version ({error}): run `taximeter migrate`.",
    ("psycopg", "OperationalError"): "PostgreSQL failed: {error}. Check that it runs, then try again.",
    ("redis", "ResponseError"): "Redis refused a command: {error}. Check the rights of the user in TAXIMETER_REDIS_URL,"
    " the server's memory, and that nothing else writes keys that begin with taximeter: there; then try again.",
    (
        "redis",
        "RedisError",
    ): "Redis failed: {error}. Check that it runs and that TAXIMETER_REDIS_URL is its address, then try again.",
}
"""Errors that a person may meet, by module and class, and how they are told. Looked up among the modules that are
loaded, since loading them all would make every command slow; the first that fits."""


def run() -> int:
    """Run one command; an expected error becomes a sentence on stderr and exit code 1, or 2 for a usage error."""
    try:
        app(prog_name="taximeter")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BrokenPipeError:
        # the reader has gone, as `| head` does; the interpreter must not complain about it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        note(f"taximeter: {_without_secrets(sentence)}")
        if isinstance(error, UsageError):
            return 2
    return 1


def _without_secrets(sentence: str) -> str:
    """A sentence of some library may quote an address that it could not read."""
    from taximeter_db.secret import Secret, redact

    for name, value in os.environ.items():
        if name.startswith("TAXIMETER_") and ("://" in value or name.endswith(("SECRET", "KEY", "KEYS"))):
            Secret(value)
    return redact(sentence)


def _sentence(error: Exception) -> str | None:
    for (module, name), sentence in _SENTENCES.items():
        if module in sys.modules and isinstance(error, getattr(sys.modules[module], name)):
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return sentence.format(error=str(error) if sentence == "{error}" else clean(lines[0]).rstrip("."))
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return None
