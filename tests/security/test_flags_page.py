"""The programs of docs/flags.md, run as the shipped user ``tool`` on every Redis and Valkey that is here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from factories import make_state
from servers import require
from servers.shipped_redis import BINARIES, ShippedRedis
from taximeter import names
from taximeter_worker.flags import marks
from taximeter_worker.flags.connecting import connect_flags
from taximeter_worker.flags.writer import write_states
from waiting import eventually

PAGE = (Path(__file__).parents[2] / "docs" / "flags.md").read_text()


def program(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found[1]


@pytest.fixture(params=list(BINARIES))
def shipped(
    request: pytest.FixtureRequest, server_folder: Path, make_secrets: ModuleType, passwords: dict[str, str]
) -> Iterator[ShippedRedis]:
    require(request.param, BINARIES[request.param], "install redis-server")
    server = ShippedRedis(BINARIES[request.param], Path(tempfile.mkdtemp(dir=server_folder)), make_secrets, passwords)
    server.start()
    yield server
    server.kill()


@pytest.mark.parametrize("language", ["javascript", "python"])
def test_a_program_follows_flips(language: str, shipped: ShippedRedis, tmp_path: Path):
    if language == "javascript":
        require("node", shutil.which("node"), "install nodejs")
    command, name = {"javascript": ("node", "flag.mjs"), "python": (sys.executable, "flag.py")}[language]
    (tmp_path / name).write_text(program(language))
    worker = connect_flags(shipped.url("worker"))
    environment = {**os.environ, "TAXIMETER_REDIS_URL": shipped.url("tool")}
    process = subprocess.Popen(
        [command, str(tmp_path / name), "acme"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: list[str] = []
    threading.Thread(target=_collect, args=(process, lines), daemon=True).start()
    try:
        eventually(lambda: lines[-1:] == ["acme disabled"], what="a cold cache and no flag")
        marks.note_ready(worker, marks.ReadyMark(1, 0, "run"))
        eventually(lambda: lines[-1:] == ["acme enabled"], what="a new workspace")
        write_states(worker, [make_state(balance=-(10**12), version=1)])
        eventually(lambda: lines[-1:] == ["acme disabled"], what="a flip")
        write_states(worker, [make_state(balance=10**12, version=2)])
        eventually(lambda: lines[-1:] == ["acme enabled"], what="a flip back")
    finally:
        process.kill()
        _, errors = process.communicate()
        worker.close()
    assert errors == ""


def _collect(process: subprocess.Popen[str], lines: list[str]) -> None:
    assert process.stdout is not None
    lines.extend(line.strip() for line in process.stdout)


def test_the_shell_asks(shipped: ShippedRedis):
    require("redis-cli", shutil.which("redis-cli"), "install redis-tools")
    worker = connect_flags(shipped.url("worker"))
    write_states(worker, [make_state(balance=-(10**12), version=1)])
    worker.close()
    done = subprocess.run(
        ["sh", "-c", program("sh")],
        env={**os.environ, "TAXIMETER_REDIS_URL": shipped.url("tool")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["0", "0"]
    assert names.FLAGS_READY in program("sh")
