"""How payloads are stored: compressed, and encrypted with a data key of their workspace.

A stored payload is what its row's codec says:

    0  the bytes as they came        2  AES-256-GCM over 0
    1  zstd over 0                   3  AES-256-GCM over 1        -1  erased

Encrypted: the number of the data key (4 bytes), the nonce (12), ciphertext and tag. Workspace and event id are bound in as
associated data, so that a ciphertext put beside another event does not open.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Final

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from psycopg import Connection
from sqlalchemy import ARRAY, Integer, any_, bindparam, select

from taximeter_db.core import Statement
from taximeter_db.crypto.master_keys import KEY_BYTES, MasterKeys
from taximeter_db.errors import MasterKeyError, PayloadError
from taximeter_db.ledger import binary_rows
from taximeter_db.ledger.events import Usage
from taximeter_db.models.base import Id
from taximeter_db.models.keys import WorkspaceKey
from taximeter_db.sql import statement

PLAIN, ZSTD, ENCRYPTED, ENCRYPTED_ZSTD, ERASED = 0, 1, 2, 3, -1
COMPRESSED_BYTES_MIN: Final = 128
"""Below it zstd's frame eats what it saves."""
_LEVEL: Final = 1
_BYTES_MAX: Final = 64 * 1024 * 1024
_NONCE_BYTES: Final = 12
_HEAD: Final = struct.Struct(">I")
_PURPOSE: Final = b"taximeter payload\0"
_CACHED_MAX: Final = 50_000
_READ: Final = statement("read_payload_keys")
_CREATE: Final = statement("create_payload_keys")
_KEYS = Statement(
    select(WorkspaceKey.number, WorkspaceKey.wrapped, WorkspaceKey.master).where(
        WorkspaceKey.workspace_id == bindparam("workspace_id", type_=Id),
        WorkspaceKey.number == any_(bindparam("numbers", type_=ARRAY(Integer))),
        WorkspaceKey.wrapped.is_not(None),
    )
)


def _bound_to(workspace_id: str, event_id: str) -> bytes:
    # neither can hold a NUL
    return b"%b%b\0%b" % (_PURPOSE, workspace_id.encode(), event_id.encode())


class PayloadCrypto:
    """Compresses and encrypts payloads before they are booked; shared by the threads of a process.

    Args:
        masters: Without them payloads are compressed and not encrypted.
    """

    def __init__(self, masters: MasterKeys | None) -> None:
        self._masters = masters
        self._keys: dict[str, tuple[int, AESGCM]] = {}
        self._lock = threading.Lock()

    @property
    def encrypts(self) -> bool:
        """Whether there is a master key."""
        return self._masters is not None

    def encode(self, conn: Connection[Any], usages: Iterable[Usage]) -> None:
        """Fill in `stored` of the usages that have a payload, where it is not done or done with a key that was forgotten.

        Workspaces that do not exist yet are left out: whoever creates them calls again. Takes no balance's lock, except
        where a workspace needs its first key; outside of a transaction that one is short.
        """
        if self._masters is None:
            compress = zstandard.ZstdCompressor(level=_LEVEL).compress
            for usage in usages:
                if usage.payload is not None and usage.stored is None:
                    usage.stored, usage.codec = _compressed(usage.payload, compress)
            return
        with self._lock:
            keys = dict(self._keys)
        todo = [
            usage
            for usage in usages
            if usage.payload is not None
            and (usage.key_number == 0 or keys.get(usage.workspace_id, _NO_KEY)[0] != usage.key_number)
        ]
        if not todo:
            return
        missing = sorted({usage.workspace_id for usage in todo if usage.workspace_id not in keys})
        if missing:
            keys |= self._find(conn, self._masters, missing)
        _encrypt([usage for usage in todo if usage.workspace_id in keys], keys)

    def _find(
        self, conn: Connection[Any], masters: MasterKeys, workspace_ids: list[str]
    ) -> dict[str, tuple[int, AESGCM]]:
        """The data keys of these workspaces, made where there is none that this process can unwrap."""
        usable: dict[str, tuple[int, AESGCM]] = {}
        for _ in range(3):  # another worker may make a key between our looking and our making
            numbers = dict.fromkeys((workspace_id for workspace_id in workspace_ids if workspace_id not in usable), 0)
            for workspace_id, number, wrapped, master in conn.execute(_READ, {"workspace_ids": list(numbers)}):
                if number and master in masters:
                    usable[workspace_id] = (number, AESGCM(masters.unwrap(workspace_id, wrapped, master)))
                    del numbers[workspace_id]
                else:
                    numbers[workspace_id] = number
            if numbers:
                made = {workspace_id: os.urandom(KEY_BYTES) for workspace_id in numbers}
                for workspace_id, number in conn.execute(
                    _CREATE,
                    {
                        "workspace_ids": binary_rows.TextArray(
                            [binary_rows.text(workspace_id) for workspace_id in numbers]
                        ),
                        "numbers": binary_rows.BigintArray(numbers.values()),
                        "wrapped": binary_rows.ByteaArray(
                            [masters.wrap(workspace_id, key) for workspace_id, key in made.items()]
                        ),
                        "master": masters.current,
                    },
                ):
                    usable[workspace_id] = (number, AESGCM(made[workspace_id]))
            if len(usable) == len(workspace_ids):
                break
        with self._lock:
            if len(self._keys) + len(usable) > _CACHED_MAX:
                self._keys.clear()
            self._keys |= usable
        return usable

    def forget(self, workspace_ids: Iterable[str]) -> None:
        """Look the data keys of these workspaces up again: they are others now."""
        with self._lock:
            for workspace_id in workspace_ids:
                self._keys.pop(workspace_id, None)


_NO_KEY: Final = (0, None)


def _compressed(payload: bytes, compress: Any) -> tuple[bytes, int]:
    if len(payload) >= COMPRESSED_BYTES_MIN:
        packed: bytes = compress(payload)
        if len(packed) < len(payload):
            return packed, ZSTD
    return payload, PLAIN


def _encrypt(usages: Sequence[Usage], keys: dict[str, tuple[int, AESGCM]]) -> None:
    compress = zstandard.ZstdCompressor(level=_LEVEL).compress
    nonces = os.urandom(_NONCE_BYTES * len(usages))
    for index, usage in enumerate(usages):
        number, key = keys[usage.workspace_id]
        data, codec = _compressed(usage.payload or b"", compress)
        nonce = nonces[index * _NONCE_BYTES : (index + 1) * _NONCE_BYTES]
        bound = _bound_to(usage.workspace_id, usage.event_id)
        usage.stored = _HEAD.pack(number) + nonce + key.encrypt(nonce, data, bound)
        usage.codec, usage.key_number = codec + ENCRYPTED, number


def key_number(stored: bytes) -> int:
    """Number of the data key of an encrypted payload."""
    return int(_HEAD.unpack_from(stored)[0])


def decode(codec: int, stored: bytes, workspace_id: str, event_id: str, data_key: bytes | None) -> bytes:
    """The payload as it came.

    Raises:
        PayloadError: It was changed, or belongs to another event, or its codec is not known.
    """
    data = stored
    try:
        if codec in (ENCRYPTED, ENCRYPTED_ZSTD):
            if data_key is None:
                raise PayloadError(f"The contents of {event_id} are encrypted with another key.")
            nonce, text = stored[4 : 4 + _NONCE_BYTES], stored[4 + _NONCE_BYTES :]
            data, codec = AESGCM(data_key).decrypt(nonce, text, _bound_to(workspace_id, event_id)), codec - ENCRYPTED
        if codec == ZSTD:
            if zstandard.frame_content_size(data) > _BYTES_MAX:
                raise PayloadError(f"The contents of {event_id} are larger than any event.")
            data, codec = zstandard.ZstdDecompressor().decompress(data), PLAIN
    except (InvalidTag, ValueError, zstandard.ZstdError, struct.error) as error:
        raise PayloadError(f"The contents of {event_id} were changed in the database.") from error
    if codec != PLAIN:
        raise PayloadError(f"The contents of {event_id} are stored in a way that this version does not know.")
    return data


def data_keys(
    conn: Connection[Any], masters: MasterKeys | None, workspace_id: str, numbers: Iterable[int]
) -> dict[int, bytes]:
    """Those of a workspace's data keys that exist and that the master keys unwrap."""
    keys: dict[int, bytes] = {}
    for number, wrapped, master in _KEYS.all(conn, workspace_id=workspace_id, numbers=sorted(set(numbers))):
        try:
            if masters is not None:
                keys[number] = masters.unwrap(workspace_id, wrapped, master)
        except MasterKeyError:
            continue  # shown as locked
    return keys


def existing_keys(conn: Connection[Any], workspace_id: str, numbers: Iterable[int]) -> set[int]:
    """Those of a workspace's data keys that were not erased, whether or not they can be unwrapped here."""
    return {number for number, _, _ in _KEYS.all(conn, workspace_id=workspace_id, numbers=sorted(set(numbers)))}
