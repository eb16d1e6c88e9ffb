"""Logging: structlog lines through the standard library's handlers (Celery sets those up).

Nothing that an event holds may reach a log. So an exception is logged by its kind and place, never by its text, unless the
text is known to come from a server.
"""

from __future__ import annotations

import traceback
from typing import Any

import structlog

from taximeter_db.secret import redact


def configure() -> None:
    """Send structlog's lines to the standard library as ``event key=value …``. Once per process is enough."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.processors.KeyValueRenderer(key_order=["event"], drop_missing=True),
            _masked,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


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
