"""Whether there is an idempotency key for every usage, and a usage for every key.

Without a usage's key its event would be booked, and charged, a second time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Self

import msgspec
from psycopg import Connection

from taximeter_db.audit.verify_chunks import Chunk
from taximeter_db.ledger.events import event_key
from taximeter_db.sql import statements

_SQL = statements("verify_keys")
_KEYS: Final = "taximeter.usage_keys"
_MODULUS: Final = 2**63
_ALL, _EACH = "''::text", "k.workspace_id"
_IS_OWN, _LOOKS_OWN = _SQL["is_own"].strip(), _SQL["looks_own"].strip()


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


def of_usages(conn: Connection[Any], chunk: Chunk, run: tuple[Any, ...]) -> Sums:
    """Of a chunk's usages: of those whose id is its own key as the chunk's walk summed them, and of the others.

    ``run`` is the row that verify_chunk.sql returns for the chunk as a whole.
    """
    own = _sum(*run[-4:])
    return own if own.count == run[1] else own + _of_hashed(conn, chunk, _LOOKS_OWN, _ALL).get("", Sums())


def of_usages_exactly(conn: Connection[Any], chunks: Iterable[Chunk]) -> Sums:
    """Of the usages of all these chunks, whatever their ids look like; takes several times as long."""
    return sum((sums for chunk in chunks for sums in _of_chunk(conn, chunk).values()), Sums())


def disagreeing(conn: Connection[Any], chunks: Iterable[Chunk]) -> list[tuple[str, Sums, Sums]]:
    """The workspaces, of the whole ledger in chunks, whose keys are not those of their usages; keys before usages."""
    keys = _sums(conn, _KEYS, {}, _EACH)
    usages: dict[str, Sums] = {}
    for chunk in chunks:
        for workspace_id, sums in _of_chunk(conn, chunk).items():
            usages[workspace_id] = usages.get(workspace_id, Sums()) + sums
    pairs = ((name, keys.get(name, Sums()), usages.get(name, Sums())) for name in sorted(keys.keys() | usages.keys()))
    return [pair for pair in pairs if not pair[1].agrees_with(pair[2])]


def booked_twice(conn: Connection[Any], workspace_id: str) -> list[tuple[str, int]]:
    """Event ids that were booked more than once in a workspace, with the second entry; the first 100."""
    return conn.execute(_SQL["twice"], {"workspace_id": workspace_id}).fetchall()


def _of_chunk(conn: Connection[Any], chunk: Chunk) -> dict[str, Sums]:
    usages = _SQL["usages"].format(usages=chunk.source("usages"), is_own=_IS_OWN)
    sums = _sums(conn, usages, chunk.values(), _EACH)
    for workspace_id, more in _of_hashed(conn, chunk, _IS_OWN, _EACH).items():
        sums[workspace_id] = sums.get(workspace_id, Sums()) + more
    return sums


def _of_hashed(conn: Connection[Any], chunk: Chunk, is_own: str, whose: str) -> dict[str, Sums]:
    query = _SQL["hashed"].format(usages=chunk.source("usages"), is_own=is_own)
    hashed = conn.execute(query, chunk.values(), prepare=False).fetchall()
    if not hashed:
        return {}
    event_ids, workspace_ids, fingerprints = zip(*hashed, strict=True)
    given = {
        "event_keys": [event_key(event_id).hex() for event_id in event_ids],
        "workspace_ids": list(workspace_ids),
        "fingerprints": list(fingerprints),
    }
    return _sums(conn, _SQL["given"], given, whose)


def _sums(conn: Connection[Any], keys: str, values: dict[str, Any], whose: str = _ALL) -> dict[str, Sums]:
    rows = conn.execute(_SQL["sums"].format(whose=whose, keys=keys), values, prepare=False)
    return {row[0]: _sum(*row[1:]) for row in rows}


def _sum(count: int, keys: int, contents: int, without_fingerprint: int) -> Sums:
    return Sums(count, int(keys) % _MODULUS, int(contents) % _MODULUS, without_fingerprint)
