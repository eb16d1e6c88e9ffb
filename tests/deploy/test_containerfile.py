"""The Containerfile cannot be built here: it is read, and its build step is done with the files that it would copy."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from deploy.compose_file import DEPLOY, ROOT, container_instructions

INSTRUCTIONS = container_instructions()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _all(name: str) -> list[str]:
    return [rest for instruction, rest in INSTRUCTIONS if instruction == name]


def _copied() -> list[str]:
    """Sources of every COPY out of the repository."""
    return [source for rest in _all("COPY") if not rest.startswith("--from") for source in rest.split()[:-1]]


def _reaches_the_build(path: str) -> bool:
    """Whether .dockerignore lets this through: the last pattern that fits decides."""
    reaches = True
    parts = Path(path).parts
    prefixes = ["/".join(parts[: end + 1]) for end in range(len(parts))]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if not line or line.startswith("#"):
            continue
        candidates = parts if pattern.startswith("**/") else prefixes
        if any(fnmatch.fnmatch(one, pattern.removeprefix("**/")) for one in candidates):
            reaches = line.startswith("!")
    return reaches


def test_sources_exist_and_reach_the_build():
    assert _copied()
    for source in _copied():
        assert (ROOT / source).exists(), source
        assert _reaches_the_build(source), f"{source} is held back by .dockerignore"


def test_nothing_else_reaches_the_build():
    for path in (".git/config", ".env", "deploy/.env", "tests/conftest.py", "db/x/__pycache__/y.pyc", ".venv/bin/sh"):
        assert not _reaches_the_build(path), path


def test_nothing_is_fetched_by_the_builder_itself():
    assert _all("ADD") == []
    assert "://" not in (DEPLOY / "Containerfile").read_text()


def test_no_shell_anywhere():
    for name in ("RUN", "ENTRYPOINT", "CMD"):
        for rest in _all(name):
            assert isinstance(json.loads(rest), list), f"{name} {rest}"
    assert json.loads(_all("HEALTHCHECK")[0].partition("CMD ")[2])


def test_every_installation_is_pinned():
    installs = [json.loads(rest) for rest in _all("RUN") if '"pip", "install"' in rest]
    assert installs
    for command in installs:
        pinned = "--require-hashes" in command and "--only-binary=:all:" in command
        assert pinned or ("--no-index" in command and "--no-deps" in command), command


def test_the_build_s_pins_are_those_of_the_developers():
    def entries(path: Path) -> set[str]:
        return {entry.strip() for entry in re.split(r"\n(?=\S)", path.read_text())}

    build = entries(DEPLOY / "requirements-build.txt")
    assert any(entry.startswith("hatchling==") for entry in build)
    assert build <= entries(ROOT / "requirements-dev.txt"), "run `make lock`"


def test_runs_as_nobody_in_particular():
    names = [name for name, _ in INSTRUCTIONS]
    last_stage = INSTRUCTIONS[len(names) - 1 - names[::-1].index("FROM") :]
    users = [rest for name, rest in last_stage if name == "USER"]
    assert users == ["10001:10001"]
    after = last_stage[last_stage.index(("USER", users[0])) :]
    assert not {"RUN", "COPY"} & {name for name, _ in after}, "nothing may belong to that user"
    assert ("ENTRYPOINT", '["taximeter"]') in last_stage


def test_base_is_the_python_that_the_tests_run_on():
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert {rest.split()[0] for rest in _all("FROM")} == {f"python:{oldest}-slim"}


def test_the_wheel_builds_from_what_is_copied(tmp_path: Path):
    context = tmp_path / "context"
    context.mkdir()
    for source in _copied():
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, context / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, context)
    (build,) = (json.loads(rest) for rest in _all("RUN") if '"hatchling"' in rest)
    done = subprocess.run([sys.executable, *build[1:]], cwd=context, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = (context / "dist").glob("taximeter-*.whl")
    with zipfile.ZipFile(wheel) as opened:
        inside = set(opened.namelist())
    for package in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        folder = ROOT / package
        for path in folder.rglob("*"):
            if path.suffix in {".py", ".sql", ".lua", ".typed"}:
                assert path.relative_to(folder.parent).as_posix() in inside
