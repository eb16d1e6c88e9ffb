"""One way to connect: what the server's defaults are does not matter, and what cannot work is said at once."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from servers.databases import drop_database, make_database
from taximeter_cli.embedded.postgres import ROLE
from taximeter_dashboard.database import Database
from taximeter_db import connect, migrate
from taximeter_db.errors import DatabaseUnavailableError, SchemaError
from taximeter_db.ledger import booking

ROOT = Path(__file__).parents[2]
NEEDED = {
    "DateStyle": "ISO, YMD",
    "TimeZone": "UTC",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "bytea_output": "hex",
}
"""What changes how values are read and written, and what it must be on every connection; not taken from the code."""
STRANGE = {
    "DateStyle": "SQL, DMY",
    "TimeZone": "Asia/Kathmandu",
    "IntervalStyle": "iso_8601",
    "extra_float_digits": "-15",
    "standard_conforming_strings": "off",
    "bytea_output": "escape",
    "backslash_quote": "on",
    "search_path": "nowhere",
}


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_another_encoding_is_refused_with_a_sentence(postgres, encoding):
    name = make_database(postgres)
    drop_database(postgres, name)
    with psycopg.connect(postgres.admin_url(), autocommit=True) as admin:
        admin.execute(
            f"CREATE DATABASE {name} OWNER {ROLE} ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
        )
    try:
        for attempt in (migrate.upgrade, connect.connect, connect.booking_connection, migrate.current):
            with pytest.raises(SchemaError) as caught:
                attempt(postgres.url(name))
            assert f"encoding is {encoding}; Taximeter needs UTF8" in str(caught.value)
    finally:
        drop_database(postgres, name)


def test_defaults_of_the_database_change_no_value(database_url, usage, payment):
    with psycopg.connect(database_url, autocommit=True) as owner:
        for name, value in STRANGE.items():
            owner.execute(f"ALTER DATABASE {owner.info.dbname} SET \"{name}\" = '{value}'")
    occurred = dt.datetime(2026, 2, 3, 4, 5, 6, 789012, tzinfo=dt.UTC)
    with connect.booking_connection(database_url) as conn:
        booking.book(
            conn,
            [usage("a", "模型\\'x", occurred_at=int(occurred.timestamp()) * 10**6 + 789012, cost=7, model="模型")],
            [payment("a", note="C:\\new 'quoted'")],
        )
    with connect.connection(database_url) as conn:
        assert conn.execute("SELECT occurred_at, cost, model, event_id FROM taximeter.usage_log").fetchone() == (
            occurred,
            Decimal("7E-12"),
            "模型",
            "模型\\'x",
        )
        assert conn.execute("SELECT note FROM taximeter.payments").fetchone() == ("C:\\new 'quoted'",)
        assert conn.execute("SELECT '1 day 2 hours'::interval").fetchone() == (dt.timedelta(days=1, hours=2),)


def test_every_kind_of_connection_reads_and_writes_in_one_notation(database_url: str, role_url: Callable[[str], str]):
    with psycopg.connect(database_url, autocommit=True) as owner:
        for name, value in STRANGE.items():
            owner.execute(f"ALTER DATABASE {owner.info.dbname} SET \"{name}\" = '{value}'")
    page = Database(role_url("dashboard"))
    with contextlib.ExitStack() as opened:
        opened.callback(page.close)
        kinds = {
            "plain": opened.enter_context(connect.connection(database_url)),
            "migrations": opened.enter_context(connect.connection(database_url, profile=connect.MIGRATIONS)),
            "booking": opened.enter_context(connect.booking_connection(role_url("worker"))),
            "metrics": opened.enter_context(connect.connection(role_url("metrics"))),
            "page": opened.enter_context(page.transaction()),
        }
        for kind, conn in kinds.items():
            for name, value in NEEDED.items():
                assert conn.execute("SELECT current_setting(%s)", [name]).fetchone() == (value,), (kind, name)


def test_every_connection_notices_a_server_that_vanished(database_url):
    """What the address says of the network counts; what it leaves out is filled in. See tests/faults for it happening."""
    with connect.connection(database_url) as conn:
        used = conn.info.get_parameters()
        assert {name: str(value) for name, value in connect.NETWORK.items()}.items() <= used.items()
    with connect.connection(f"{database_url}?keepalives_idle=77&application_name=mine") as conn:
        used = conn.info.get_parameters()
        assert (used["keepalives_idle"], used["application_name"]) == ("77", "mine")
        assert used["keepalives_interval"] == str(connect.NETWORK["keepalives_interval"])


def test_several_hosts_lead_to_the_one_that_may_be_written(database_url):
    host = re.search(r"@([^/]+)/", database_url)[1]
    several = database_url.replace(host, f"127.0.0.1:1,{host}") + "?target_session_attrs=read-write"
    with connect.connection(several) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
        with conn.again() as other:
            assert other.info.port == conn.info.port


@pytest.mark.parametrize(
    "address", ["postgresql://u:hunter2#x@h/0", "postgresql://u:p%zz@h/0", "host=h hunter2", "http://x"]
)
def test_an_address_that_cannot_be_read_is_said_without_it(address):
    with pytest.raises(DatabaseUnavailableError) as caught:
        connect.connect(address)
    assert "hunter2" not in str(caught.value)
    assert "TAXIMETER_DATABASE_URL" in str(caught.value)


def test_nothing_else_connects():
    """Worker, tasks, command line, page, metrics and migrations: all through `taximeter_db.connect`."""
    homes = {
        "db/taximeter_db/connect.py",
        # alembic's own engine, which is given connections of ours
        "db/taximeter_db/migrations/env.py",
        # the superuser of the embedded server, before there is a database
        "cli/taximeter_cli/embedded/postgres.py",
        # a pool of our connections
        "dashboard/taximeter_dashboard/database.py",
    }
    connecting = {
        path.relative_to(ROOT).as_posix()
        for folder in ("producers", "db", "worker", "dashboard", "gateway", "cli")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"psycopg\.connect\(|\bConnectionPool\(|create_engine\(|\bConnection\.connect\(", path.read_text())
    }
    assert connecting <= homes
    assert "LedgerConnection" in (ROOT / "dashboard/taximeter_dashboard/database.py").read_text()
