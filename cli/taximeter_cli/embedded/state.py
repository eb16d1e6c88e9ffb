"""What is known of an instance: the data directory, its lock and its state file.

The state file holds the addresses, passwords included, and the processes; it is readable for its owner alone. It is
written by ``taximeter up`` and read by every other command.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import msgspec

from taximeter_cli.embedded.process import start_token
from taximeter_cli.errors import EmbeddedError

DEFAULT_FOLDER = ".taximeter"
_STATE = "state.json"
_LOCK = "lock"


class Child(msgspec.Struct):
    """A process by number and start, so that a later process of the same number is not taken for it."""

    pid: int
    token: str


class State(msgspec.Struct):
    """The state file. ``supervisor`` is None after an orderly stop; the addresses stay, so that ports stay."""

    supervisor: Child | None = None
    addresses: dict[str, str] = {}
    children: dict[str, Child] = {}
    ready: bool = False

    @property
    def running(self) -> bool:
        """Whether the supervisor that wrote this is alive."""
        return self.supervisor is not None and start_token(self.supervisor.pid) == self.supervisor.token


def data_folder(given: Path | None) -> Path:
    """The data directory: as given, else ``TAXIMETER_DATA_DIR``, else ``.taximeter`` here."""
    return (given or Path(os.environ.get("TAXIMETER_DATA_DIR") or DEFAULT_FOLDER)).absolute()


def data_dir_option(folder: Path) -> str:
    """What a command in this directory needs to find ``folder``: nothing, if it is the default there."""
    return "" if folder == Path(DEFAULT_FOLDER).absolute() else f" --data-dir {shlex.quote(str(folder))}"


def prepare(folder: Path) -> None:
    """Make the data directory, private to us.

    As root, the unprivileged user that PostgreSQL runs as must be able to pass through it: then it is 0711, and every
    file in it has its own owner and mode.
    """
    mode = 0o711 if os.geteuid() == 0 else 0o700
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):  # never change the mode of a directory that holds something
        folder.chmod(mode)


def read(folder: Path) -> State:
    """Read the state file; an empty state where there is none or it is damaged."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
        return msgspec.json.decode((folder / _STATE).read_bytes(), type=State)
    return State()


def write(folder: Path, state: State) -> None:
    """Replace the state file as a whole: a reader sees the old one or the new one."""
    draft = folder / f".{_STATE}.new"
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        stream.write(msgspec.json.format(msgspec.json.encode(state)))
    draft.replace(folder / _STATE)


@contextlib.contextmanager
def sole_supervisor(folder: Path) -> Iterator[None]:
    """Hold the directory's lock; the kernel lets go of it however we end.

    Raises:
        EmbeddedError: Another supervisor holds it; the sentence names its process.
    """
    with (folder / _LOCK).open("a+", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            pid = lock.read().strip() or "unknown"
            raise EmbeddedError(
                f"Taximeter already runs on {folder} (process {pid}). Its addresses: `taximeter env{data_dir_option(folder)}`."
                f" To stop it, press Ctrl-C in its terminal or run: kill {pid}. To run a second one beside it, choose"
                " another --data-dir."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
