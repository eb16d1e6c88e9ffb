"""Variables that look like settings but are not, told at the start of every command."""

from __future__ import annotations

import logging
import os

from taximeter_cli.console import note


def tell(*, as_json: bool) -> None:
    """Say on stderr, in sentences or as lines of a JSON log, which of the environment's variables mean nothing."""
    from taximeter_db.settings import PREFIX, odd

    if not any(variable.startswith(PREFIX) for variable in os.environ):
        return
    from taximeter_cli.settings import all_variables

    for sentence in odd(os.environ, all_variables()):
        if as_json:
            from taximeter_db import json_logs

            record = logging.LogRecord("taximeter", logging.WARNING, __file__, 0, sentence, None, None)
            note(json_logs.JsonLines().format(record))
        else:
            note(f"taximeter: {sentence}")
