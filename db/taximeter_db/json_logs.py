"""Log lines for a machine: one JSON object a line, of our own loggers and of the libraries' alike."""

from __future__ import annotations

import datetime as dt
import functools
import json
import logging
import numbers
import os
import socket
from importlib import metadata
from typing import Any, Final

from taximeter_db.secret import redact

VARIABLE: Final = "TAXIMETER_LOG_FORMAT"
TEXT: Final = "text"
JSON: Final = "json"
FIELDS: Final = "taximeter_fields"
"""Name under which a record carries what else its line is to say, as a dict."""


@functools.cache
def version() -> str:
    """The installed version of Taximeter."""
    return metadata.version("taximeter")


def instance() -> str:
    """What tells this process from others: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


class JsonLines(logging.Formatter):
    """Formats a record as an object with ``time`` (UTC), ``level``, ``logger``, ``message`` and the record's own fields.

    ``version`` and ``instance`` say which Taximeter wrote it, and which process.

    Secrets of this process are masked; what JSON does not know is written as its text.
    """

    def format(self, record: logging.LogRecord) -> str:
        """A line without its end."""
        line: dict[str, Any] = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
            "version": version(),
            "instance": instance(),
        }
        fields: dict[str, Any] = getattr(record, FIELDS, {})
        line |= {name: _masked(value) for name, value in fields.items() if name not in line}
        if record.exc_info:
            line["traceback"] = redact(self.formatException(record.exc_info))
        return json.dumps(line, default=_text)


def start() -> None:
    """Log warnings and worse as lines of JSON to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def _masked(value: Any) -> Any:
    if isinstance(value, numbers.Real | None):
        return value
    if isinstance(value, dict):
        return {str(name): _masked(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked(one) for one in value]
    return redact(str(value))


def _text(value: Any) -> str:
    return redact(str(value))
