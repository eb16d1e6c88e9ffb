"""The wheel without extras, in an environment that holds nothing else: what it brings, and that it publishes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = {
    "taximeter",
    "kombu",
    "amqp",
    "vine",
    "tzdata",
    "redis",
    "packaging",
    "msgspec",
    "async-timeout",
    "typing-extensions",
    "typing_extensions",
}
"""The four dependencies and what they need themselves."""

TOOL = """
from taximeter import Meter
with Meter.from_env() as meter:
    print(meter.record("acme", tool="chat", quantities={"requests": 1}))
    print(meter.enabled("acme"))
"""


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that can import the wheel and its dependencies only."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    installer = Path(sys.executable).with_name("uv")
    done = subprocess.run(
        [str(installer), "pip", "install", "--quiet", "--python", str(python), str(wheel)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "UV_PYTHON_DOWNLOADS": "never"},
    )
    if done.returncode != 0:
        pytest.fail(f"the wheel cannot be installed; is a package registry within reach?\n{done.stderr}")
    return python


def test_the_wheel_brings_its_four_dependencies_and_their_needs_only(bare_python: Path) -> None:
    script = "import importlib.metadata as m; print(*(d.metadata['Name'].lower() for d in m.distributions()))"
    listed = subprocess.run([str(bare_python), "-c", script], capture_output=True, text=True, check=True)
    installed = set(listed.stdout.split())
    assert {"taximeter", "kombu", "redis", "packaging", "msgspec"} <= installed
    assert installed <= ALLOWED


def test_it_publishes_and_checks_a_flag(
    bare_python: Path, broker: Any, redis_url: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    settings = {
        "TAXIMETER_BROKER_URL": broker.url,
        "TAXIMETER_REDIS_URL": redis_url,
        "TAXIMETER_SPOOL": str(tmp_path / "spool"),
    }
    done = subprocess.run(
        [str(bare_python), "-W", "error", "-c", TOOL],
        capture_output=True,
        text=True,
        check=False,
        env={**environment, **settings},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    event_id, enabled = done.stdout.split()
    assert enabled == "False", "an empty Redis is a cold cache"
    assert [event["id"] for event in broker.events()] == [event_id]


def test_type_information_and_metadata_are_in_the_wheel(bare_python: Path) -> None:
    script = (
        "import importlib.metadata as m, json, pathlib, taximeter;"
        "print(json.dumps([(pathlib.Path(taximeter.__file__).parent / 'py.typed').exists(), m.requires('taximeter')]))"
    )
    done = subprocess.run([str(bare_python), "-c", script], capture_output=True, text=True, check=True)
    typed, requires = json.loads(done.stdout)
    assert typed
    plain = {line.split(">")[0].split(";")[0].strip() for line in requires if "extra ==" not in line}
    assert plain == {"kombu", "msgspec", "packaging", "redis"}
