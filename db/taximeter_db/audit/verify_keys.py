"""Whether there is an idempotency key for every usage, and a usage for every key.

Without a usage's key its event would be booked, and charged, a second time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Self

import msgspec
from psycopg import Connection, errors

from taximeter_db.audit.verify_chunks import Chunk
from taximeter_db.ledger.events import event_key
from taximeter_db.sql import statements

_SQL = statements("verify_keys")
_KEYS: Final = "taximeter.usage_keys"
_UUID: Final = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-79a-f][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$"
"""Ids that are their own key: canonical, and not of the version that hashed keys have."""
_MODULUS: Final = 2**63
_ALL, _EACH = "''::text", "k.workspace_id"


class Sums(msgspec.Struct, frozen=True):
    """A set of keys as numbers: how many, hashes of them without and with their fingerprints, how many have none.

    The hashes of sets add up, modulo 2⁶³.
    """

    count: int = 0
    keys: int = 0
    contents: int = 0
    without_fingerprint: int = 0

    def __add__(self, other: Self) -> Sums:
        """Of both sets together."""
        return Sums(
            self.count + other.count,
            (self.keys + other.keys) % _MODULUS,
            (self.contents + other.contents) % _MODULUS,
            self.without_fingerprint + other.without_fingerprint,
        )

    def __sub__(self, other: Self) -> Sums:
        """Of what is in this set and not in the other, which it includes."""
        return Sums(
            self.count - other.count,
            (self.keys - other.keys) % _MODULUS,
            (self.contents - other.contents) % _MODULUS,
            self.without_fingerprint - other.without_fingerprint,
        )

    def agrees_with(self, usages: Self) -> bool:
        """Whether these are the keys of the usages. Usages from before there were chains have no fingerprint."""
        return (self.count, self.keys) == (usages.count, usages.keys) and (
            usages.without_fingerprint > 0 or self.contents == usages.contents
        )


def of_keys(conn: Connection[Any]) -> Sums:
    """Of all idempotency keys."""
    return _sums(conn, _KEYS, {}).get("", Sums())


def of_usages(conn: Connection[Any], chunk: Chunk) -> Sums:
    """Of a chunk's usages."""
    return _of_chunk(conn, chunk, _ALL).get("", Sums())


def disagreeing(conn: Connection[Any], chunks: Iterable[Chunk]) -> list[tuple[str, Sums, Sums]]:
    """The workspaces, of the whole ledger in chunks, whose keys are not those of their usages; keys before usages."""
    keys = _sums(conn, _KEYS, {}, _EACH)
    usages: dict[str, Sums] = {}
    for chunk in chunks:
        for workspace_id, sums in _of_chunk(conn, chunk, _EACH).items():
            usages[workspace_id] = usages.get(workspace_id, Sums()) + sums
    pairs = ((name, keys.get(name, Sums()), usages.get(name, Sums())) for name in sorted(keys.keys() | usages.keys()))
    return [pair for pair in pairs if not pair[1].agrees_with(pair[2])]


def booked_twice(conn: Connection[Any], workspace_id: str) -> list[tuple[str, int]]:
    """Event ids that were booked more than once in a workspace, with the second entry; the first 100."""
    return conn.execute(_SQL["twice"], {"workspace_id": workspace_id}).fetchall()


def _of_chunk(conn: Connection[Any], chunk: Chunk, whose: str) -> dict[str, Sums]:
    source, values = chunk.source("usages"), chunk.values()
    try:
        with conn.transaction():
            query = _SQL["own"].format(whose=whose, usages=source)
            rows = conn.execute(query, values, prepare=False).fetchall()
        sums, are_others = {row[0]: _sum(*row[1:5]) for row in rows}, any(row[5] for row in rows)
    except errors.InvalidTextRepresentation:
        sums = _sums(conn, _SQL["usages"].format(usages=source, uuid=_UUID), values, whose)
        are_others = True
    return _with_hashed(conn, sums, (source, values), whose) if are_others else sums


def _with_hashed(
    conn: Connection[Any], sums: dict[str, Sums], chunk: tuple[str, dict[str, Any]], whose: str
) -> dict[str, Sums]:
    source, values = chunk
    hashed = conn.execute(_SQL["hashed"].format(usages=source, uuid=_UUID), values, prepare=False).fetchall()
    if hashed:
        event_ids, workspace_ids, fingerprints = zip(*hashed, strict=True)
        given = {
            "event_keys": [event_key(event_id).hex() for event_id in event_ids],
            "workspace_ids": list(workspace_ids),
            "fingerprints": list(fingerprints),
        }
        for workspace_id, more in _sums(conn, _SQL["given"], given, whose).items():
            sums[workspace_id] = sums.get(workspace_id, Sums()) + more
    return sums


def _sums(conn: Connection[Any], keys: str, values: dict[str, Any], whose: str = _ALL) -> dict[str, Sums]:
    rows = conn.execute(_SQL["sums"].format(whose=whose, keys=keys), values, prepare=False)
    return {row[0]: _sum(*row[1:]) for row in rows}


def _sum(count: int, keys: int, contents: int, without_fingerprint: int) -> Sums:
    return Sums(count, int(keys) % _MODULUS, int(contents) % _MODULUS, without_fingerprint)
