"""Every scenario, end to end on its own servers, as small as it gets."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest
from benchmarks.stack import ROOT

pytestmark = pytest.mark.soak
EVERY = [
    "end-to-end", "recording", "asking", "flip", "upkeep", "reads", "growth", "memory", "as-of", "notices",
    "partitions", "profile",
]  # fmt: skip


@pytest.mark.parametrize("name", EVERY)
def test_it_runs_and_reports(name, tmp_path):
    file = tmp_path / "results.json"
    command = [sys.executable, "-m", "benchmarks", name, "--smoke", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    scenario = msgspec.json.decode(file.read_bytes())["scenarios"][name]
    assert scenario["form"] == "smoke"
    assert all(turns and turns[0] for turns in scenario["result"]["sides"].values())


def test_an_unknown_name_is_a_usage_error():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "no-such"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "end-to-end" in done.stderr
