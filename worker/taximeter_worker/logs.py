"""Logging: structlog lines, as text or JSON, through the standard library's handlers (Celery sets those up).

Nothing that an event holds may reach a log. So an exception is logged by its kind and place, never by its text, unless the
text is known to come from a server.
"""

from __future__ import annotations

import logging
import traceback
from typing import Any

import structlog
from celery.signals import after_setup_logger, after_setup_task_logger

from taximeter_db import json_lines
from taximeter_db.secret import redact


def configure(form: str = json_lines.TEXT) -> None:
    """Send structlog's lines to the standard library as ``event key=value …``, or as JSON. Once per process is enough."""
    as_text = [structlog.processors.KeyValueRenderer(key_order=["event"], drop_missing=True), _masked]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *([_record] if form == json_lines.JSON else as_text)],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    if form == json_lines.JSON:
        # What is said before Celery has set up its handlers, such as its warning to root.
        logging.captureWarnings(True)
        if logging.lastResort is not None:
            logging.lastResort.setFormatter(json_lines.JsonLines())
        for signal in (after_setup_logger, after_setup_task_logger):
            signal.connect(_format_json, weak=False)


def _format_json(logger: logging.Logger, **_given: Any) -> None:
    for handler in logger.handlers:
        handler.setFormatter(json_lines.JsonLines())


def _record(_logger: Any, _method: str, line: Any) -> Any:
    return {"msg": line.pop("event"), "extra": {json_lines.FIELDS: line}}


def _masked(_logger: Any, _method: str, line: Any) -> str:
    return redact(str(line))


def first_line(error: BaseException) -> str:
    """What a server says, without the DETAIL that may quote a row."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def where(error: BaseException) -> str:
    """The place an exception came from, innermost last; no values."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return " > ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames)
