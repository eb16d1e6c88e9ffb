"""The README's tour, word for word: every command in order on a fresh system, every line of output compared."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from taximeter_cli.embedded.process import wait_until

ROOT = Path(__file__).parents[2]
BINARIES = Path(sys.executable).parent

# What differs from run to run: times, and how much demo traffic there was.
VOLATILE = [
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "<time>"),
    (r"in \d+\.\d s", "in <seconds>"),
    (r"\d+ workspaces, \d+ usages, \d+ payments", "<counts>"),
    (r"\d[\d,]* workspaces, \d[\d,]* usages, \d[\d,]* payments", "<counts>"),
    (r"[ \t]+$", ""),
]


def _blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert found, f"the README has no {language} block"
    return found


def _steps() -> list[tuple[str, str]]:
    """(command, expected output) in order."""
    steps: list[tuple[str, str]] = []
    for line in "".join(_blocks("console")).splitlines():
        if line.startswith("$ "):
            steps.append((line[2:], ""))
        else:
            command, output = steps[-1]
            steps[-1] = (command, output + line + "\n")
    return steps


def _plain(text: str) -> str:
    for pattern, replacement in VOLATILE:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


@pytest.fixture
def tour(tmp_path: Path, environment: dict[str, str]) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder in which ``taximeter up --demo``, which is what `make up` runs, is running."""
    folder = tmp_path / "tour"
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").write_text(f'export PATH="{BINARIES}:$PATH"\n')
    log = folder / "up.log"
    with log.open("wb") as output:
        running = subprocess.Popen(
            [BINARIES / "taximeter", "up", "--demo"], cwd=folder, env=environment, stdout=output, stderr=output
        )
    try:
        assert wait_until(lambda: "Ctrl-C stops everything" in log.read_text() or running.poll() is not None, 90)
        assert running.poll() is None, log.read_text()
        yield folder, environment
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0, log.read_text()


def test_make_up_runs_what_the_tour_runs():
    assert re.search(r"^up:.*\n\t@\$\(BIN\)/taximeter up --demo$", (ROOT / "Makefile").read_text(), re.MULTILINE)


def _run(shell: subprocess.Popen[str], command: str) -> tuple[str, str]:
    """Exit status and output of a command typed into the shell."""
    assert shell.stdin is not None
    assert shell.stdout is not None
    shell.stdin.write(f'{command}\necho "<end $?>"\n')
    output = ""
    while not (end := re.search(r"<end (\d+)>\n$", output)):
        line = shell.stdout.readline()
        assert line, output
        output += line
    return end[1], output[: end.start()]


def test_the_tour(tour: tuple[Path, dict[str, str]]):
    folder, environment = tour
    # The number of calls depends on how fast the flip is: a crowded machine gets more time for each.
    tool = _blocks("python")[0]
    assert "time.sleep(0.1)" in tool
    (folder / "tool.py").write_text(tool.replace("time.sleep(0.1)", "time.sleep(0.6)"))
    (folder / "event.json").write_text(_blocks("json")[0])
    shell = subprocess.Popen(
        ["/bin/bash"],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
    )
    try:
        for command, expected in _steps():
            # Where a reader waits a moment, a busy machine may need a longer one.
            deadline = time.monotonic() + (60 if command.startswith("sleep ") else 0)
            status, output = _run(shell, command)
            while _plain(output) != _plain(expected) and time.monotonic() < deadline:
                status, output = _run(shell, command)
            assert _plain(output) == _plain(expected), command
            assert status == "0", f"{command}\n{output}"
    finally:
        shell.communicate(timeout=10)
