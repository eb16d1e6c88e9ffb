"""What the SDK reads from the environment. Nothing else of it does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from taximeter import names
from taximeter.addresses import BROKER_URL_VARIABLE, REDIS_URL_VARIABLE
from taximeter.brokers.opening import PRODUCER_KEY_VARIABLE
from taximeter.errors import ConfigurationError

SPOOL_VARIABLE: Final = "TAXIMETER_SPOOL"
SHARDS_VARIABLE: Final = "TAXIMETER_SHARDS"
TOP_UP_URL_VARIABLE: Final = "TAXIMETER_TOP_UP_URL"
_ARGUMENTS: Final = {
    "broker_url": BROKER_URL_VARIABLE,
    "redis_url": REDIS_URL_VARIABLE,
    "producer_key": PRODUCER_KEY_VARIABLE,
    "spool": SPOOL_VARIABLE,
    "top_up_url": TOP_UP_URL_VARIABLE,
}


def settings_from_environment() -> dict[str, Any]:
    """The arguments of `taximeter.Meter` that the environment gives. An empty variable counts as missing.

    Raises:
        ConfigurationError: A variable cannot be understood.
    """
    settings: dict[str, Any] = {argument: os.environ.get(variable) or None for argument, variable in _ARGUMENTS.items()}
    shards = os.environ.get(SHARDS_VARIABLE) or "1"
    if not (shards.isascii() and shards.isdigit()):
        raise ConfigurationError(f"{SHARDS_VARIABLE} must be a whole number from 1 to {names.SHARDS_MAX}")
    return {**settings, "shards": int(shards[:9])}


def default_spool() -> Path:
    """Where the spool lives when nobody says.

    Raises:
        ConfigurationError: This user has no home directory.
    """
    state = os.environ.get("XDG_STATE_HOME")
    try:
        base = Path(state) if state else Path.home() / ".local" / "state"
    except RuntimeError:  # neither HOME nor an entry in the user database
        raise ConfigurationError(
            f"this user has no home directory to keep the spool in; set {SPOOL_VARIABLE} to a directory on a local disk"
        ) from None
    return base / "taximeter" / "spool"
