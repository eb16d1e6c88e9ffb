"""Every balance, status and flag of a moment, made again from the log into a scratch schema, and compared.

`verify` proves that the log is what was booked. A rebuild says what it made of every workspace at any moment: a log that
is read once, block by block, in one transaction. Its end drops the scratch schema unless it is to be kept, and so does
whatever ends the transaction before.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import psycopg
from psycopg import Connection, IsolationLevel, sql

from taximeter_db import money
from taximeter_db.audit import verify_chunks
from taximeter_db.errors import RebuildError
from taximeter_db.sql import statements

BLOCKS_AT_ONCE: Final = 131_072
"""Blocks of the log that one statement adds up: 1 GiB, some five million usages, a few seconds."""
EXPLAINED_MAX: Final = 100
"""Workspaces of which the first wrong entry is looked for."""
SCHEMA_PATTERN: Final = r"(?!pg_)[a-z_][a-z0-9_]{0,62}"
_FOREVER: Final = "infinity"
_SQL: Final = statements("rebuild")
_SENTENCES: Final = {
    "gap": "{whose}: an entry of the log is missing, moved or numbered twice{at}",
    "running": "{whose}: the balance stored{at} is {stored}, but the log adds up to {computed}",
    "status": "{whose}: its status was {computed}, but the log of status changes says {stored}",
    "table": "{whose}: its {field} is {stored}, but the log says {computed}",
    "orphan": "{whose}: the log has entries of a workspace that does not exist",
    "detached": "the log from {stored} to {computed} is detached: attach its partitions, nothing else was compared",
}


class Difference(msgspec.Struct, frozen=True):
    """Something that does not agree: what is `stored`, and what was `computed` from the log. Amounts as decimal text.

    `kind` is ``gap``, ``running``, ``status``, ``table`` (with a `field`), ``orphan`` or ``detached``. `entry` is the
    first wrong one of ``gap`` and ``running``, where it was looked for.
    """

    workspace_id: str
    kind: str
    field: str | None = None
    stored: str | None = None
    computed: str | None = None
    entry: int | None = None

    @property
    def sentence(self) -> str:
        """What does not agree, for a person."""
        at = "" if self.entry is None else f" {'after' if self.kind == 'running' else 'at'} entry {self.entry}"
        return _SENTENCES[self.kind].format(
            whose=self.workspace_id, at=at, field=self.field, stored=self.stored, computed=self.computed
        )


class Rebuilt(msgspec.Struct, frozen=True):
    """What was made. `balance` is the sum of all, in picodollars; `statuses` says how many workspaces had which."""

    as_of: dt.datetime
    workspaces: int = 0
    usages: int = 0
    payments: int = 0
    balance: int = 0
    statuses: dict[str, int] = {}
    differences: tuple[Difference, ...] = ()
    schema: str | None = None

    @property
    def ok(self) -> bool:
        """Whether everything agrees."""
        return not self.differences


def rebuild(
    conn: Connection[Any],
    as_of: dt.datetime | None = None,
    *,
    keep: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Rebuilt:
    """Make all again and compare; bookings go on meanwhile.

    Args:
        conn: The owner's, outside a transaction, in autocommit mode.
        as_of: What was recorded at this moment or before counts. None: all there is now, which is also compared with
            the live tables.
        keep: Keep the scratch schema, under this name.
        progress: Called with how many blocks of the log were read, and how many there are.

    Raises:
        RebuildError: The moment lies ahead, the name is taken or cannot be one, or the server takes no writes.
        psycopg.errors.InsufficientPrivilege: The user may not create a schema, or not read everything.
    """
    if keep is not None and not re.fullmatch(SCHEMA_PATTERN, keep, re.ASCII):
        raise RebuildError(
            f"{keep[:80]!r} cannot be the name of a schema. Use 1 to 63 characters of a-z 0-9 _, not beginning with pg_."
        )
    schema = keep or f"taximeter_rebuild_{conn.info.backend_pid}"
    before = conn.isolation_level
    conn.isolation_level = IsolationLevel.REPEATABLE_READ
    try:
        with conn.transaction(force_rollback=keep is None):
            return _Rebuild(conn, schema, as_of).run(progress or _silent, kept=keep)
    except psycopg.errors.DuplicateSchema as error:
        raise RebuildError(
            f"There is a schema {schema} already. Keep this one under another name, or drop it: DROP SCHEMA {schema} CASCADE;"
        ) from error
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise RebuildError(
            "This server takes no writes (a standby?), and a rebuild makes a scratch schema. Use the primary's address."
        ) from error
    finally:
        conn.isolation_level = before


class _Rebuild:
    """One run, within its transaction."""

    def __init__(self, conn: Connection[Any], schema: str, as_of: dt.datetime | None) -> None:
        self._conn = conn
        self._schema = sql.Identifier(schema)
        self._as_of = as_of
        self._until = {"until": _FOREVER if as_of is None else as_of}

    def run(self, progress: Callable[[int, int], None], kept: str | None) -> Rebuilt:
        verify_chunks.plan(self._conn)
        self._execute("planning")
        clock, is_ahead = self._row("moment", {"until": self._as_of})
        if is_ahead:
            raise RebuildError(f"{self._as_of:%Y-%m-%dT%H:%M:%S%z} lies ahead: the log does not say yet what will be.")
        as_of = self._as_of or clock
        if slices := verify_chunks.detached(self._conn):
            # their workspaces would all be wrong, which says less
            return Rebuilt(
                as_of,
                differences=tuple(
                    Difference("", "detached", stored=_day(first), computed=_day(end)) for first, end in slices
                ),
            )
        self._execute("create")
        for done, total in self._add_up():
            progress(done, total)
        self._execute("add_up")
        self._execute("balances", self._until)
        self._execute("order")
        self._execute("compare", {"now": self._as_of is None})
        self._execute("tidy")
        return self._report(as_of, kept)

    def _add_up(self) -> Iterator[tuple[int, int]]:
        """Read the log once, from its first block to its last; yields how far it is."""
        tables = self._conn.execute(_SQL["partitions"], self._until).fetchall()
        total = sum(blocks for _, _, blocks in tables)
        done = 0
        yield done, total
        for name, is_usages, blocks in tables:
            for first in range(0, blocks, BLOCKS_AT_ONCE):
                run = {"first": f"({first},0)", "end": f"({first + BLOCKS_AT_ONCE},0)", **self._until}
                # the name comes quoted from the catalogue
                query = sql.SQL(_SQL["sum_usages" if is_usages else "sum_payments"])
                self._conn.execute(query.format(schema=self._schema, partition=sql.SQL(name)), run, prepare=False)
                done += min(BLOCKS_AT_ONCE, blocks - first)
                yield done, total

    def _report(self, as_of: dt.datetime, kept: str | None) -> Rebuilt:
        workspaces, usages, payments, balance, *counts = self._row("counts")
        return Rebuilt(
            as_of,
            workspaces,
            usages,
            payments,
            money.from_numeric_text(balance),
            dict(zip(("sufficient", "low", "insufficient"), counts, strict=True)),
            tuple(self._differences()),
            kept,
        )

    def _differences(self) -> Iterator[Difference]:
        found = [Difference(*row) for row in self._execute("differences").fetchall()]
        gapped = {one.workspace_id for one in found if one.kind == "gap"}
        explained = 0
        for one in found:
            if one.kind == "running" and one.workspace_id in gapped:
                continue  # where entries are missing, the sums behind them cannot be right
            if one.kind in {"gap", "running"} and explained < EXPLAINED_MAX:
                explained += 1
                yield self._located(one)
            else:
                yield one

    def _located(self, one: Difference) -> Difference:
        """The difference with the first entry that shows it."""
        whose = {"workspace_id": one.workspace_id, **self._until}
        row = self._conn.execute(_SQL["first_wrong"], whose, prepare=False).fetchone()
        if row is None:
            return one
        entry, number, stored, computed = row
        if one.kind == "gap":
            return msgspec.structs.replace(one, entry=number) if entry != number else one
        return msgspec.structs.replace(one, entry=entry, stored=stored, computed=computed)

    def _row(self, name: str, values: dict[str, Any] | None = None) -> tuple[Any, ...]:
        """The one row of a statement that always has one."""
        (row,) = self._execute(name, values).fetchall()
        return tuple(row)

    def _execute(self, name: str, values: dict[str, Any] | None = None) -> psycopg.Cursor[Any]:
        query = sql.SQL(_SQL[name]).format(schema=self._schema)
        return self._conn.execute(query, values, prepare=False)


def _day(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).date().isoformat()


def _silent(_done: int, _total: int) -> None:
    """Nobody watches."""
