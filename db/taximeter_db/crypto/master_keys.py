"""Master keys: they wrap the workspaces' data keys, and encrypt where notices go and what signs them.

The first one given wraps new data keys; all of them unwrap. So a new one is put in front, `taximeter keys rotate` wraps
everything again, and the old one can go.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from taximeter_db.errors import MasterKeyError

VARIABLE: Final = "TAXIMETER_MASTER_KEY"
FILE_VARIABLE: Final = "TAXIMETER_MASTER_KEY_FILE"
KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_PURPOSE: Final = b"taximeter data key\0"


class MasterKeys:
    """The master keys that this process knows. Their values are in no ``repr``."""

    def __init__(self, keys: list[bytes]) -> None:
        self._keys = {_name(key): AESGCM(key) for key in keys}
        self.current = _name(keys[0])
        """Name of the one that wraps new data keys."""

    def __repr__(self) -> str:
        return f"MasterKeys({', '.join(self._keys)})"

    @property
    def names(self) -> list[str]:
        """Names of all of them, the current one first."""
        return list(self._keys)

    def __contains__(self, name: object) -> bool:
        return name in self._keys

    def wrap(self, workspace_id: str, data_key: bytes) -> bytes:
        """Encrypt a workspace's data key under the current master key."""
        return self.encrypt(_PURPOSE + workspace_id.encode(), data_key)

    def unwrap(self, workspace_id: str, wrapped: bytes, name: str) -> bytes:
        """The data key.

        Raises:
            MasterKeyError: This master key is not known here, or the wrapped key is not the workspace's.
        """
        key = self._keys.get(name)
        if key is None:
            raise MasterKeyError(
                f"The contents of {workspace_id} need the master key {name}, which is not given here. "
                f"Add it to {VARIABLE} or to the file of {FILE_VARIABLE}."
            )
        try:
            return key.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], _PURPOSE + workspace_id.encode())
        except InvalidTag as error:
            raise MasterKeyError(f"The data key of {workspace_id} was changed in the database.") from error

    def encrypt(self, context: bytes, plain: bytes) -> bytes:
        """Encrypt a few bytes under the current master key, bound to their context."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._keys[self.current].encrypt(nonce, plain, context)

    def decrypt(self, context: bytes, stored: bytes, name: str) -> bytes:
        """The bytes again.

        Raises:
            MasterKeyError: This master key is not known here, or the stored bytes are not of this context.
        """
        key = self._keys.get(name)
        if key is None:
            raise MasterKeyError(
                f"The master key {name} is needed and not given here. Add it to {VARIABLE} or to the file of {FILE_VARIABLE}."
            )
        try:
            return key.decrypt(stored[:_NONCE_BYTES], stored[_NONCE_BYTES:], context)
        except InvalidTag as error:
            raise MasterKeyError("Something encrypted was changed in the database.") from error


def _name(key: bytes) -> str:
    """A name for a master key that tells nothing of it."""
    return hashlib.sha256(b"taximeter master key\0" + key).hexdigest()[:16]


def new() -> str:
    """A new master key as text."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()


def parse(text: str) -> MasterKeys:
    """Master keys from text: base64 of 32 bytes each, divided by commas or white space, the current one first.

    Raises:
        MasterKeyError: There is none, or one is not a master key; the message does not quote it.
    """
    keys = []
    for part in text.replace(",", " ").split():
        try:
            key = base64.b64decode(part, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != KEY_BYTES:
            raise MasterKeyError("must be base64 of 32 bytes, as `taximeter keys new` prints it")
        keys.append(key)
    if not keys:
        raise MasterKeyError("holds no master key; `taximeter keys new` makes one")
    return MasterKeys(keys)


def read_file(path: str | Path) -> MasterKeys:
    """Master keys from a file, one a line, the current one first.

    Raises:
        MasterKeyError: It cannot be read or holds no keys.
    """
    try:
        return parse(Path(path).read_text(encoding="ascii"))
    except PermissionError as error:
        raise MasterKeyError(
            "names a file that this user may not read. Give it to this user (mode 0400); under systemd with DynamicUser,"
            " hand it over with LoadCredential=, as the shipped units do"
        ) from error
    except UnicodeDecodeError as error:
        raise MasterKeyError("names a file that holds something else than keys") from error
    except OSError as error:
        raise MasterKeyError(f"names a file that cannot be read: {error.strerror}") from error


def make_file(path: Path) -> Path:
    """A file with a new master key, readable for its owner alone; one that exists stays as it is."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(new() + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    return path
