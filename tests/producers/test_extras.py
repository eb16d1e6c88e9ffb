"""Each integration has its extra, and nothing of it is imported before it is used."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "producers" / "taximeter" / "integrations"
SHARED = {"__init__", "asgi", "bounds", "following", "http_answers", "iterating", "problems", "proxy"}
"""Modules that need no library of their own."""
PARTS = {"worker", "embedded", "dashboard", "gateway", "parquet", "pdf", "all"}
LIBRARIES = {
    *("agents", "anthropic", "boto3", "botocore", "cohere", "django", "google.genai", "httpx", "httpx2"),
    *("langchain_core", "litellm", "llama_index", "mcp", "mistralai", "openai", "opentelemetry"),
    *("pydantic", "pydantic_ai", "starlette", "taximeter.integrations"),
}
SCRIPT = """
import sys
from taximeter import Meter
with Meter() as meter, meter.attribution("acme", tool="chat"):
    pass
print(*sys.modules)
"""


def test_each_integration_has_its_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    modules = {path.stem.replace("_", "-") for path in FOLDER.glob("*.py") if path.stem not in SHARED}
    assert extras.keys() - PARTS == modules


def test_a_meter_imports_no_integration() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & LIBRARIES == set()
