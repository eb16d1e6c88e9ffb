"""Where PostgreSQL, the broker and Redis are: from the environment, else from a running embedded instance."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from taximeter_cli.embedded import state as states
from taximeter_cli.errors import CliError
from taximeter_worker.settings import Settings

DATABASE = "TAXIMETER_DATABASE_URL"
BROKER = "TAXIMETER_BROKER_URL"
REDIS = "TAXIMETER_REDIS_URL"
_ALL = (DATABASE, BROKER, REDIS)
MASTER_KEY_VARIABLES = ("TAXIMETER_MASTER_KEY", "TAXIMETER_MASTER_KEY_FILE")
MASTER_KEY_FILE = "master-key"
"""In the data directory of an embedded instance."""


def find(data_dir: Path | None, *needed: str) -> dict[str, str]:
    """The addresses named in ``needed``.

    One variable that is set means that all are taken from the environment: a database here and flags there would
    not be one system.

    Raises:
        CliError: One is missing.
        ConfigurationError: One is of another kind of server, or cannot be understood.
    """
    if given():
        missing = [name for name in needed if not os.environ.get(name)]
        if missing:
            present = ", ".join(name for name in _ALL if os.environ.get(name))
            raise CliError(
                f"{' and '.join(missing)} must be set too, because {present} is set. To use the embedded instance"
                " instead, unset all of them."
            )
        return {name: Settings.checked(name, os.environ[name]) for name in needed}
    known = running_instance(data_dir)
    return {name: known[name] for name in needed}


def given() -> bool:
    """Whether the environment says where things are."""
    return any(os.environ.get(name) for name in _ALL)


def as_part(known: dict[str, str], login: str) -> dict[str, str]:
    """The embedded instance's addresses for one of its parts, which gets no more than its own rights."""
    from taximeter_cli.embedded.logins import part_url

    return {**known, DATABASE: part_url(known[DATABASE], login)}


def master_key(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Where the embedded instance's master key is, unless the environment says where things are, or gives one."""
    file = folder / MASTER_KEY_FILE
    if given() or any(environment.get(name) for name in MASTER_KEY_VARIABLES) or not file.exists():
        return {}
    return {MASTER_KEY_VARIABLES[1]: str(file)}


def running_instance(data_dir: Path | None) -> dict[str, str]:
    """The addresses of the embedded instance.

    Raises:
        CliError: None runs on that directory, or it is still starting.
    """
    folder = states.data_folder(data_dir)
    state = states.read(folder)
    if not state.running:
        raise CliError(
            f"no instance of Taximeter runs on {folder}. Start one with `taximeter up{states.data_dir_option(folder)}`,"
            f" name another directory with --data-dir, or set {', '.join(_ALL)}."
        )
    if not state.ready:
        raise CliError(f"the instance on {folder} is still starting: try again in a moment.")
    return state.addresses
