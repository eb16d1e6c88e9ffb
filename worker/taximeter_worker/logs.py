"""Logging: structlog lines, as text or JSON, through the standard library's handlers (Celery sets those up).

Nothing that an event holds may reach a log. So an exception is logged by its kind and place, never by its text, unless the
text is known to come from a server.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterable
from typing import Any

import structlog
from celery.apps import worker as celery_worker
from celery.signals import after_setup_logger, after_setup_task_logger

from taximeter_db import json_logs
from taximeter_db.secret import redact


def configure(form: str = json_logs.TEXT) -> None:
    """Send structlog's lines to the standard library as ``event key=value …``, or as JSON. Once per process is enough."""
    as_text = [_who, structlog.processors.KeyValueRenderer(key_order=["event"], drop_missing=True), _masked]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *([_record] if form == json_logs.JSON else as_text)],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    if form == json_logs.JSON:
        # What is said before Celery has set up its handlers, such as its warning to root.
        logging.captureWarnings(True)
        if logging.lastResort is not None:
            logging.lastResort.setFormatter(json_logs.JsonLines())
        for signal in (after_setup_logger, after_setup_task_logger):
            signal.connect(_format_json, weak=False)
        # What neither we nor a library would log: Celery's farewell, and what nobody caught.
        celery_worker.safe_say = _say
        sys.excepthook = lambda kind, error, _frames: _uncaught(kind, error)
        threading.excepthook = lambda given: _uncaught(given.exc_type, given.exc_value, given.thread)


def _say(text: str, _file: object = None) -> None:
    """Write a sentence of Celery's at once: it comes from within a signal handler, where no logger may be used."""
    record = logging.LogRecord("celery.apps.worker", logging.WARNING, "", 0, text.strip(), None, None)
    with contextlib.suppress(OSError):
        os.write(2, json_logs.JsonLines().format(record).encode() + b"\n")


def _uncaught(kind: type[BaseException], error: BaseException | None, thread: threading.Thread | None = None) -> None:
    if issubclass(kind, SystemExit | KeyboardInterrupt):
        return
    place = where(error) if error is not None else ""
    log = structlog.get_logger(__name__)
    log.critical("uncaught", kind=kind.__name__, where=place, thread=thread.name if thread else "main")


def stacks() -> dict[str, str]:
    """What every thread is at: places and no values."""
    named = {thread.ident: thread.name for thread in threading.enumerate()}
    return {
        named.get(ident, str(ident)): _places(traceback.extract_stack(frame)[-8:])
        for ident, frame in sys._current_frames().items()  # noqa: SLF001 -- there is no other way to look into threads
    }


def _who(_logger: Any, _method: str, line: Any) -> Any:
    return {**line, "version": json_logs.version(), "instance": json_logs.instance()}


def _format_json(logger: logging.Logger, **_given: Any) -> None:
    for handler in logger.handlers:
        handler.setFormatter(json_logs.JsonLines())


def _record(_logger: Any, _method: str, line: Any) -> Any:
    return {"msg": line.pop("event"), "extra": {json_logs.FIELDS: line}}


def _masked(_logger: Any, _method: str, line: Any) -> str:
    return redact(str(line))


def first_line(error: BaseException) -> str:
    """What a server says, without the DETAIL that may quote a row."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def where(error: BaseException) -> str:
    """The place an exception came from, innermost last; no values."""
    return _places(traceback.extract_tb(error.__traceback__)[-4:])


def _places(frames: Iterable[traceback.FrameSummary]) -> str:
    return " > ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames)
