"""How addresses and secrets of targets are stored: encrypted by the current master key, where there is one."""

from __future__ import annotations

from taximeter_db.crypto.master_keys import MasterKeys
from taximeter_db.errors import MasterKeyError

_CONTEXT = b"taximeter notice target\0"


def seal(masters: MasterKeys | None, workspace_id: str, text: str) -> bytes:
    """A text as it is stored in a row whose ``master`` is that of `name_of`."""
    plain = text.encode()
    return plain if masters is None else masters.encrypt(_CONTEXT + workspace_id.encode(), plain)


def name_of(masters: MasterKeys | None) -> str | None:
    """The name of the master key that `seal` uses."""
    return None if masters is None else masters.current


def reveal(masters: MasterKeys | None, workspace_id: str, stored: bytes, master: str | None) -> str:
    """The text again.

    Raises:
        MasterKeyError: The master key is not known here, or the row was changed.
    """
    if master is None:
        return stored.decode()
    if masters is None:
        raise MasterKeyError(f"The address of a notice's target needs the master key {master}, and none is given here.")
    return masters.decrypt(_CONTEXT + workspace_id.encode(), stored, master).decode()
