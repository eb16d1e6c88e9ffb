"""This machine: its settings, and what tools here could not publish yet."""

from __future__ import annotations

import os
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from taximeter.environment import SPOOL_VARIABLE, default_spool
from taximeter.spool.segment import SUFFIX
from taximeter_cli.doctor.report import Check, verdict
from taximeter_cli.settings import all_variables
from taximeter_db.settings import odd

WAITING_SECONDS_MAX: Final = 600
ANSWER_SECONDS_MAX: Final = 5


def settings() -> Iterator[Check]:
    """Whether every variable means something."""
    told = odd(os.environ, all_variables())
    yield verdict("settings", " ".join(told), "every TAXIMETER_ variable means something", "Correct or unset them.")


def spool() -> Iterator[Check]:
    """Whether events of tools of this user wait in the spool, and for how long."""
    folder = Path(os.environ.get(SPOOL_VARIABLE) or default_spool())
    segments = [entry.stat() for entry in folder.glob(f"*{SUFFIX}")] if folder.is_dir() else []
    waiting = [segment for segment in segments if segment.st_size]
    oldest = time.time() - min((segment.st_mtime for segment in waiting), default=time.time())
    stuck = oldest > WAITING_SECONDS_MAX
    yield verdict(
        "spool",
        f"{len(waiting)} segments wait in {folder}, the oldest for {oldest / 60:.0f} minutes" if stuck else "",
        f"nothing is stuck in {folder}",
        "A tool with the same TAXIMETER_SPOOL and TAXIMETER_BROKER_URL publishes them: start one, see that it reaches the broker.",
    )


def gateway(url: str | None) -> Iterator[Check]:
    """Whether the gateway answers, where one is known."""
    if not url:
        return
    wrong = ""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=ANSWER_SECONDS_MAX):  # noqa: S310 - the operator's
            pass
    except (OSError, ValueError) as error:
        wrong = f"does not answer: {type(getattr(error, 'reason', error)).__name__}"
    yield verdict("gateway", wrong, "answers", "Check TAXIMETER_GATEWAY_URL, and that `taximeter gateway` runs there.")
