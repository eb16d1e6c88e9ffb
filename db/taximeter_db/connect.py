"""The one place that connects to PostgreSQL: for worker, tasks, command line, page, metrics and migrations.

Every connection notices within half a minute that its server is gone, speaks and stores UTF-8, reads and writes values in
one notation whatever the server's defaults are, and works behind PgBouncer in transaction mode. Unless it says otherwise
it also refuses a schema that this version does not fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import msgspec
import psycopg
from psycopg import Connection, Transaction
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

from taximeter_db import roles, schema
from taximeter_db.errors import DatabaseUnavailableError, SchemaError
from taximeter_db.ledger import binary_rows
from taximeter_db.secret import Secret, redact
from taximeter_db.sql import statements

NETWORK: Final[Mapping[str, Any]] = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""Of libpq: a server that vanished is noticed after 25 seconds, mid-statement too. An address may say otherwise."""
SERVERS_NETWORK: Final[Mapping[str, str]] = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "15s",
}
"""The same for the server's side: the locks of a client whose host vanished are free after 25 seconds, mid-COPY too."""
NOTATION: Final[Mapping[str, str]] = {
    "DateStyle": "ISO, YMD",
    "TimeZone": "UTC",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "bytea_output": "hex",
}
"""What decides how values are read and written as text. A role or database may have other defaults."""
_POOLER_KEEPS: Final = {"DateStyle", "TimeZone", "standard_conforming_strings"}
"""What PgBouncer keeps for each of its clients; anything else would stay on a server's connection, for whoever is next."""
_SQL = statements("session")


class Profile(msgspec.Struct, frozen=True):
    """What a part of the system uses its connections for. `settings` are PostgreSQL's, beside `NOTATION`."""

    application_name: str
    settings: Mapping[str, str] = {}
    prepare_threshold: int | None = None
    """After how many executions a statement is prepared; None: never."""
    any_schema: bool = False
    """Whether to connect to a database without a schema, or with one that this version does not fit."""


PLAIN: Final = Profile("taximeter")
MIGRATIONS: Final = Profile("taximeter migrate", any_schema=True)
NOTICES: Final = Profile("taximeter notices", prepare_threshold=1)  # a few statements, for each notice
BOOKING: Final = Profile(
    "taximeter booking",
    {
        "search_path": "taximeter, pg_catalog",
        # Two workers that lock the same balances in different orders deadlock. The ledger hands its rows over sorted, and
        # the order survives only in a plan that walks them one by one into the primary key: no other plan is allowed.
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
        "enable_seqscan": "off",
        "enable_bitmapscan": "off",
        "jit": "off",
        "synchronous_commit": "on",
        "idle_in_transaction_session_timeout": "60s",
        "lock_timeout": "30s",
    },
    prepare_threshold=0,  # the same few for ever
)


class LedgerConnection(Connection[tuple[Any, ...]]):
    """A connection with the settings of its profile, also where a pooler lends it another server in each transaction."""

    pooled = False
    """Whether a pooler stands between: sessions, and all that lives in them, are then not ours."""
    profile = PLAIN
    address = Secret("")
    """Where it leads; empty in a pool."""

    def prepare_session(self, profile: Profile) -> None:
        """Apply a profile to a new connection.

        Raises:
            SchemaError: The database has another encoding than UTF-8, or a schema that this version does not fit.
        """
        self.profile = profile
        pid, encoding = self.execute(_SQL["server"]).fetchone()  # type: ignore[misc]  # one row always
        self.pooled = pid != self.info.backend_pid
        if encoding != "UTF8":
            raise SchemaError(
                f"The database's encoding is {encoding}; Taximeter needs UTF8, or names and texts in other scripts could"
                " not be stored. Create a database with ENCODING 'UTF8' TEMPLATE template0 and use that one."
            )
        # PgBouncer before 1.21 loses prepared statements.
        self.prepare_threshold = None if self.pooled else profile.prepare_threshold
        settings = {**NOTATION, **SERVERS_NETWORK, **profile.settings}
        self._set("session_settings", {k: v for k, v in settings.items() if not self.pooled or k in _POOLER_KEEPS})
        if not profile.any_schema:
            schema.require_supported(self)

    def again(self) -> LedgerConnection:
        """Open another connection of the same kind."""
        return connect(self.address.reveal(), profile=self.profile)

    @contextmanager
    def transaction(self, savepoint_name: str | None = None, force_rollback: bool = False) -> Iterator[Transaction]:
        """As of psycopg; behind a pooler it begins with the settings that no session keeps there."""
        outermost = self.info.transaction_status == TransactionStatus.IDLE
        with super().transaction(savepoint_name, force_rollback) as transaction:
            if self.pooled and outermost:
                settings = {**NOTATION, **self.profile.settings}
                self._set("transaction_settings", {k: v for k, v in settings.items() if k not in _POOLER_KEEPS})
            yield transaction

    def _set(self, statement: str, settings: Mapping[str, str]) -> None:
        if settings:
            self.execute(_SQL[statement], {"names": list(settings), "values": list(settings.values())})


def arguments(url: str, profile: Profile) -> dict[str, Any]:
    """What to give to `LedgerConnection.connect`, or to a pool of such connections together with `prepare_session`.

    An address is a URL or libpq's own notation; what it says of the network counts, `NETWORK` fills in the rest.

    Raises:
        DatabaseUnavailableError: It cannot be read. Nothing of it is quoted.
    """
    try:
        parts = conninfo_to_dict(Secret(url).reveal().replace("postgresql+psycopg://", "postgresql://", 1))
    except psycopg.ProgrammingError as error:
        raise DatabaseUnavailableError(
            "The address in TAXIMETER_DATABASE_URL cannot be read. Write postgresql://user:password@host:5432/database and"
            " percent-encode what stands for itself in user and password: # as %23, / as %2F, ? as %3F, @ as %40."
        ) from error
    return {
        **NETWORK,
        "application_name": profile.application_name,
        **{name: value for name, value in parts.items() if value is not None},
        "client_encoding": "utf8",
        "prepare_threshold": None,
    }


def sqlalchemy_url(url: str) -> str:
    """Name the psycopg driver in a libpq URL, whichever SQLAlchemy version reads it."""
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            return "postgresql+psycopg://" + url.removeprefix(scheme)
    return url


def connect(
    url: str, *, autocommit: bool = True, application_name: str | None = None, profile: Profile = PLAIN
) -> LedgerConnection:
    """Open a connection.

    Raises:
        DatabaseUnavailableError: PostgreSQL cannot be reached; the sentence holds no password.
        SchemaError: The database has another encoding than UTF-8, or a schema that this version does not fit.
    """
    if application_name is not None:
        profile = msgspec.structs.replace(profile, application_name=application_name)
    try:
        conn = LedgerConnection.connect(**arguments(url, profile), autocommit=True)
        conn.address = Secret(url)
        try:
            conn.prepare_session(profile)
            conn.autocommit = autocommit
        except BaseException:
            conn.close()
            raise
    except (psycopg.OperationalError, psycopg.ProgrammingError) as error:
        # libpq quotes what it cannot parse, which may be a part of the password
        raise DatabaseUnavailableError(
            f"PostgreSQL cannot be reached: {redact(_first_line(error))}. Check TAXIMETER_DATABASE_URL and that the server runs."
        ) from error
    return conn


def _first_line(error: BaseException) -> str:
    # The first says what failed; those after it are details, hints and, of several hosts, the others.
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


@contextmanager
def connection(url: str, *, autocommit: bool = True, profile: Profile = PLAIN) -> Iterator[LedgerConnection]:
    """A connection that is closed at the end."""
    conn = connect(url, autocommit=autocommit, profile=profile)
    try:
        yield conn
    finally:
        conn.close()


def booking_connection(url: str) -> LedgerConnection:
    """Open a connection for `taximeter_db.ledger.booking.book`: tuned so that rows are locked in the order they are given.

    Raises:
        DatabaseUnavailableError: PostgreSQL cannot be reached.
        SchemaError: As `connect`, or the database user may not book.
    """
    conn = connect(url, profile=BOOKING)
    try:
        binary_rows.register(conn)
        roles.require_worker(conn)
    except BaseException:
        conn.close()
        raise
    return conn
