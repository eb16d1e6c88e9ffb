"""PostgreSQL, and what the ledger in it says of the rest."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

from psycopg import Connection

from taximeter_cli.doctor.report import Check, verdict
from taximeter_db import flag_debts, quarantine, roles, schema, server_time
from taximeter_db.ledger import partitions
from taximeter_db.sql import statements

OLDEST_SERVER: Final = 150_000
CLOCK_SECONDS_MAX: Final = 5
AHEAD_DAYS_MIN: Final = 7
CATALOGUE_DAYS_MAX: Final = 90
DEBTS_MAX: Final = 100
_SQL = statements("doctor")
_SWITCHES: Final = ("fsync", "full_page_writes", "synchronous_commit")


def server(conn: Connection[Any]) -> Iterator[Check]:
    """Version, role and durability of the server."""
    number, standby, *switches = conn.execute(_SQL["server"]).fetchone()  # type: ignore[misc]  # one row always
    version = f"{number // 10_000}.{number % 10_000}"
    old = f"PostgreSQL {version} is older than {OLDEST_SERVER // 10_000}" if number < OLDEST_SERVER else ""
    yield verdict(
        "postgresql version", old, f"PostgreSQL {version}", "Upgrade PostgreSQL; docs/deployment.md names versions."
    )
    yield verdict(
        "postgresql role",
        "the server is a standby: it takes no writes" if standby else "",
        "a primary",
        "Name the primary in TAXIMETER_DATABASE_URL, or all hosts with target_session_attrs=read-write.",
    )
    off = [f"{name} is {value}" for name, value in zip(_SWITCHES, switches, strict=True) if value in {"off", "local"}]
    yield verdict(
        "postgresql durability",
        ", ".join(off),
        "what is committed is on disk",
        f"Set {', '.join(_SWITCHES)} to on: without them a crash loses what was booked.",
    )


def schema_version(conn: Connection[Any]) -> Iterator[Check]:
    """Whether the schema is the one of this version."""
    version, wanted = schema.of_database(conn), schema.newest()
    wrong = "" if version == wanted else f"the schema is {version or 'absent'}, this version knows {wanted}"
    newer = version is not None and version > wanted
    yield verdict(
        "schema", wrong, f"schema {wanted}", "Upgrade Taximeter here." if newer else "Run `taximeter migrate`."
    )


def clock(conn: Connection[Any]) -> Iterator[Check]:
    """Whether this machine and PostgreSQL agree on the time."""
    apart = abs(time.time_ns() // 1000 - server_time.now(conn)) // 1_000_000
    yield verdict(
        "clock",
        f"this machine's clock and PostgreSQL's are {apart} s apart" if apart > CLOCK_SECONDS_MAX else "",
        "this machine and PostgreSQL agree",
        "Let both follow a time server (chrony, systemd-timesyncd).",
    )


def rights(conn: Connection[Any]) -> Iterator[Check]:
    """Whether each role has its rights and no more."""
    wrong = []
    for name, exists, schema_use, reads, books in conn.execute(_SQL["rights"], {"roles": list(roles.ROLES)}):
        if not exists:
            wrong.append(f"the role {name} does not exist")
            continue
        if not schema_use:
            wrong.append(f"{name} may not use the schema")
        if reads != (name in {roles.WORKER, roles.DASHBOARD}):
            wrong.append(f"{name} {'may not' if not reads else 'may'} read usages")
        if books != (name == roles.WORKER):
            wrong.append(f"{name} {'may not' if not books else 'may'} book usages")
    yield verdict(
        "roles",
        ", ".join(wrong),
        "each part's role has its rights",
        "Run `taximeter migrate` as the database's owner: it gives the roles their rights (docs/security.md).",
    )


def partition_supply(conn: Connection[Any]) -> Iterator[Check]:
    """Whether the log has room for the days to come."""
    days = int(partitions.ahead_seconds(conn)) // 86_400
    yield verdict(
        "partitions",
        f"the log has partitions for {days} days from now" if days < AHEAD_DAYS_MIN else "",
        f"for {days} days from now",
        "A worker makes them each day: see that one runs and what its log says of partitions.",
    )


def open_quarantine(conn: Connection[Any]) -> Iterator[Check]:
    """Whether events wait in quarantine."""
    counts = quarantine.open_counts(conn)
    yield verdict(
        "quarantine",
        ", ".join(f"{count:,} {reason}" for reason, count in counts.items()),
        "nothing is open",
        "`taximeter quarantine list` shows them; fix the cause, then `taximeter quarantine replay` or `dismiss`.",
    )


def prices(conn: Connection[Any]) -> Iterator[Check]:
    """Whether there are prices, and how old the newest catalogue is."""
    revision, days = conn.execute(_SQL["prices"]).fetchone()  # type: ignore[misc]  # one row always
    wrong = ""
    if revision is None:
        wrong = "the price book is empty"
    elif days is not None and days > CATALOGUE_DAYS_MAX:
        wrong = f"the newest import of a catalogue is {days} days old"
    yield verdict(
        "prices",
        wrong,
        f"revision {revision}",
        "Upgrade genai-prices, look at `taximeter prices diff book genai-prices`, then `taximeter prices import`.",
    )


def debts(conn: Connection[Any]) -> Iterator[Check]:
    """Whether flags are owed to Redis."""
    owed = len(flag_debts.owed(conn, DEBTS_MAX + 1))
    count = f"more than {DEBTS_MAX}" if owed > DEBTS_MAX else str(owed)
    yield verdict(
        "flag debts",
        f"{count} flags are owed to Redis" if owed else "",
        "none",
        "A worker writes them within seconds: see that one runs and reaches Redis.",
    )


LOOKS: Final = (server, schema_version, clock, rights, partition_supply, open_quarantine, prices, debts)
