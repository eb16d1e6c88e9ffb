"""Fixtures of the command line's tests: the command as a process, and an embedded instance to run it against."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from instances import Instance


@pytest.fixture(scope="module")
def instance_folder() -> Iterator[Path]:
    """A folder that the unprivileged user of PostgreSQL can enter, as a project's folder usually is."""
    folder = Path(tempfile.mkdtemp(prefix="tx-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def running(instance_folder: Path) -> Iterator[Instance]:
    """An embedded instance for the tests of one module, which leave it running."""
    instance = Instance(instance_folder)
    instance.start()
    yield instance
    instance.end()


@pytest.fixture
def new_instance() -> Iterator[Callable[..., Instance]]:
    """Factory of embedded instances that the test may stop, kill and start again."""
    made: list[Instance] = []

    def make(*prefix: str, owner: int = 0) -> Instance:
        folder = Path(tempfile.mkdtemp(prefix="tx-", dir="/tmp"))
        folder.chmod(0o755)
        if owner:
            shutil.chown(folder, owner)
        made.append(Instance(folder, prefix))
        return made[-1]

    yield make
    for instance in made:
        instance.end()
        shutil.rmtree(instance.folder, ignore_errors=True)
