"""The JavaScript of docs/events.md runs: on Node.js, against a RabbitMQ."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kombu import Connection

from servers import require
from waiting import eventually
from workers import declare, usage

ROOT = Path(__file__).parents[2]
AMQPLIB = "amqplib@2.3.1"
_PROGRAMS = re.findall(r"```javascript\n(.*?)```", (ROOT / "docs/events.md").read_text(), re.DOTALL)


@pytest.fixture(scope="session")
def node_folder() -> Path:
    """A folder with the library that the program imports, kept beside the virtual environment."""
    node, npm = shutil.which("node"), shutil.which("npm")
    require("Node.js", node and npm, "install nodejs and npm")
    folder = Path(sys.prefix) / "node"
    if not (folder / "node_modules" / "amqplib").exists():
        folder.mkdir(exist_ok=True)
        done = subprocess.run(
            [str(npm), "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), AMQPLIB],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        require("amqplib", done.returncode == 0, "let npm reach its registry")
    return folder


def _run(folder: Path, program: str, url: str, events: list[dict]) -> subprocess.CompletedProcess[str]:
    script = folder / "program.mjs"
    script.write_text(f"const events = {json.dumps(events)};\n" + program.replace("amqp://localhost", url))
    return subprocess.run(["node", str(script)], capture_output=True, text=True, check=False, timeout=60)


def test_the_program_publishes_and_says_when_no_queue_takes_it(node_folder, amqp_url, new_runtime, ledger):
    (program,) = _PROGRAMS
    with Connection(amqp_url) as connection:
        channel = connection.default_channel
        channel.exchange_declare(exchange="taximeter", type="topic", durable=True, auto_delete=False)
        unroutable = _run(node_folder, program, amqp_url, [usage("acme")])
        assert unroutable.returncode == 1
        assert unroutable.stderr == "No queue took the message: has a worker ever been started?\n", "no stack trace"
        declare(channel)
    done = _run(node_folder, program, amqp_url, [usage("acme"), usage("acme")])
    assert (done.returncode, done.stderr) == (0, "")
    new_runtime(amqp_url)
    eventually(lambda: ledger.usages == 2)
    assert ledger.quarantined() == {}
