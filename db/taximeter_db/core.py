"""SQLAlchemy Core statements, executed on psycopg connections.

A `Statement` is written over the tables of `taximeter_db.models`, compiled once, and then costs what its SQL costs:

    _BALANCE = Statement(
        select(Workspace.balance).where(Workspace.workspace_id == bindparam("workspace_id"))
    )
    balance = _BALANCE.scalar(conn, workspace_id="acme")

Amounts are ints of picodollars on both sides (`models.base.Picodollars`). Values of a list are matched with
``column == any_(bindparam("ids", type_=ARRAY(Text)))``: an ``IN`` would compile to as many parameters as it had values.
A statement that depends on what is asked for is built by a function under `functools.cache`.
What is sensitive to its plan stands in a ``.sql`` file instead, see `taximeter_db.sql`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from psycopg import Connection, Copy, Cursor, sql
from psycopg.rows import tuple_row
from sqlalchemy import Insert, Table
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.selectable import ReturnsRows

Row = tuple[Any, ...]
_Convert = Callable[[Any], Any]

_DIALECT: Final = PGDialect_psycopg(paramstyle="pyformat")  # type: ignore[no-untyped-call]


class Statement:
    """A Core statement, compiled when it is first executed; may be shared by threads.

    Args:
        clause: Select, insert, update or delete; its values by name (`bindparam`).
        prepare: As for psycopg's `execute`. False: each execution deserves a plan of its own.
    """

    __slots__ = ("_clause", "_compiled", "_lock", "_prepare")

    def __init__(self, clause: ClauseElement, *, prepare: bool | None = None) -> None:
        self._clause = clause
        self._prepare = prepare
        self._compiled: _Compiled | None = None
        self._lock = threading.Lock()

    def all(self, conn: Connection[Any], /, **values: Any) -> list[Row]:
        """All rows."""
        compiled = self._once()
        cursor = self._execute(conn, compiled, values)
        return compiled.rows(cursor, cursor.fetchall())

    def first(self, conn: Connection[Any], /, **values: Any) -> Row | None:
        """The first row, if there is any."""
        compiled = self._once()
        cursor = self._execute(conn, compiled, values)
        row = cursor.fetchone()
        return None if row is None else compiled.rows(cursor, [row])[0]

    def one(self, conn: Connection[Any], /, **values: Any) -> Row:
        """The only row of a statement that always has one, such as an aggregate."""
        row = self.first(conn, **values)
        if row is None:
            raise LookupError("the statement returned no row")
        return row

    def scalar(self, conn: Connection[Any], /, **values: Any) -> Any:
        """The first column of the first row; None without a row."""
        row = self.first(conn, **values)
        return None if row is None else row[0]

    def scalars(self, conn: Connection[Any], /, **values: Any) -> list[Any]:
        """The first column of all rows."""
        return [row[0] for row in self.all(conn, **values)]

    def run(self, conn: Connection[Any], /, **values: Any) -> int:
        """Execute without reading rows; returns how many were changed."""
        return self._execute(conn, self._once(), values).rowcount

    def run_many(self, conn: Connection[Any], rows: Iterable[Mapping[str, Any]], /) -> int:
        """Execute once for each row of values, in one round trip; returns how many rows were changed."""
        compiled = self._once()
        cursor = _cursor(conn)
        cursor.executemany(compiled.text, [compiled.values(row) for row in rows])
        return cursor.rowcount

    def text(self) -> str:
        """The SQL that is executed, with parameters in psycopg's notation."""
        return self._once().text.decode()

    def _execute(self, conn: Connection[Any], compiled: _Compiled, values: Mapping[str, Any]) -> Cursor[Row]:
        return _cursor(conn).execute(compiled.text, compiled.values(values), prepare=self._prepare)

    def _once(self) -> _Compiled:
        if self._compiled is None:
            with self._lock:
                if self._compiled is None:
                    self._compiled = _Compiled(self._clause)
        return self._compiled


class _Compiled:
    """SQL text, and how its parameters and columns are converted."""

    __slots__ = ("_binds", "_columns", "_defaults", "_types", "text")

    def __init__(self, clause: ClauseElement) -> None:
        if isinstance(clause, Insert):
            clause = clause.inline()  # else it returned generated keys, which needs the right to read them
        compiled: Any = clause.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
        self.text: bytes = compiled.string.encode()
        self._defaults: dict[str, Any] = compiled.construct_params(_check=False)
        required = {name for bind, name in compiled.bind_names.items() if bind.required}
        for name in required:
            self._defaults.pop(name, None)
        self._binds: dict[str, _Convert | None] = dict.fromkeys(required)
        for bind, name in compiled.bind_names.items():
            if (convert := bind.type.dialect_impl(_DIALECT).bind_processor(_DIALECT)) is not None:
                self._binds[name] = convert
        self._types = [column.type.dialect_impl(_DIALECT) for column in _columns(clause)]
        self._columns: Sequence[tuple[int, _Convert]] | None = None

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters, converted. A name that the statement does not have is an error."""
        values = {**self._defaults, **given}
        for name, convert in self._binds.items():
            if convert is not None:
                values[name] = convert(values[name])
        unknown = given.keys() - self._defaults.keys() - self._binds.keys()
        if unknown:
            raise TypeError(f"the statement has no parameter {', '.join(sorted(unknown))}")
        return values

    def rows(self, cursor: Cursor[Row], rows: list[Row]) -> list[Row]:
        """The rows that the cursor gave, converted."""
        if self._columns is None:
            oids = [column.type_code for column in cursor.description or ()]
            processors = [kind.result_processor(_DIALECT, oid) for kind, oid in zip(self._types, oids, strict=True)]
            self._columns = [(index, convert) for index, convert in enumerate(processors) if convert is not None]
        if not self._columns:
            return rows
        converted = []
        for row in rows:
            values = list(row)
            for index, convert in self._columns:
                values[index] = convert(values[index])
            converted.append(tuple(values))
        return converted


def _columns(clause: ClauseElement) -> Iterable[Any]:
    return clause.exported_columns if isinstance(clause, ReturnsRows) else ()


def _cursor(conn: Connection[Any]) -> Cursor[Row]:
    # whatever rows the connection makes for others
    return conn.cursor(row_factory=tuple_row)


def copy_in(cursor: Cursor[Any], into: Table, columns: Sequence[str]) -> AbstractContextManager[Copy]:
    """Begin a COPY into a table; `columns` says which and in which order."""
    unknown = [name for name in columns if name not in into.c]
    if unknown:
        raise TypeError(f"{into.name} has no column {', '.join(unknown)}")
    return cursor.copy(
        sql.SQL("COPY {} ({}) FROM STDIN").format(
            sql.Identifier(str(into.schema), into.name), sql.SQL(", ").join(map(sql.Identifier, columns))
        )
    )
