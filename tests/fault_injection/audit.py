"""The audit: what the producers sent, generated again from the seed, against what the ledger, its quarantine and Redis hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import psycopg
import redis

from fault_injection.spender import WORKSPACES as HOLDING
from fault_injection.traffic import (
    CONFLICT,
    NEGATIVE,
    PAYMENT,
    PAYMENT_REPEAT,
    PICO_PER_TOKEN,
    REPEAT,
    UNPRICED,
    USAGE,
    plans,
)
from taximeter import names
from taximeter_db.audit.verify import verify

REASONS = {UNPRICED: "price_missing", NEGATIVE: "negative_quantity", CONFLICT: "id_conflict"}
_MANY = 255


@dataclass
class Expected:
    """What must be in the database when everything accepted has ended as it should."""

    kinds: Counter[str] = field(default_factory=Counter)
    balances: Counter[str] = field(default_factory=Counter)
    booked: dict[str, bytearray] = field(default_factory=dict)
    """By producer's prefix: for each number, 1 where its event must be in a log."""
    quarantined: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By (reason, event id)."""

    @property
    def accepted(self) -> int:
        return self.kinds.total()

    @property
    def books(self) -> int:
        return self.kinds[USAGE] + self.kinds[PAYMENT]

    @property
    def repeats(self) -> int:
        return self.kinds[REPEAT] + self.kinds[PAYMENT_REPEAT]


@dataclass(frozen=True)
class Lane:
    """A workspace with usages of its own, each of the same number of tokens."""

    usages: int
    tokens: int


def expect(seed: int, accepted: dict[int, int], lanes: dict[str, Lane]) -> Expected:
    """The sum of everything, kept apart from the system: integers, from the seed alone and what was counted."""
    found = Expected(booked={f"p{producer}": bytearray(count) for producer, count in accepted.items()})
    for planned in plans(seed, accepted):
        found.kinds[planned.kind] += 1
        if planned.kind in {USAGE, PAYMENT}:
            found.booked[f"p{planned.producer}"][planned.number] = 1
            found.balances[planned.workspace] += planned.pico
        elif planned.kind in REASONS:
            found.quarantined[REASONS[planned.kind], planned.event_id] += 1
    for workspace, lane in lanes.items():
        found.kinds[USAGE] += lane.usages
        found.booked[workspace] = bytearray([1]) * lane.usages
        found.balances[workspace] -= lane.usages * lane.tokens * PICO_PER_TOKEN
    return found


@dataclass
class Found:
    """What the database says."""

    lost: list[str] = field(default_factory=list)
    """Accepted, and neither in a log nor in quarantine."""
    double: list[str] = field(default_factory=list)
    """In a log or in quarantine more often than it should be."""
    strangers: list[str] = field(default_factory=list)
    """Booked, and never sent."""
    booked: int = 0
    quarantined: int = 0
    duplicates_seen: int = 0
    wrong_balances: list[str] = field(default_factory=list)
    wrong_flags: list[str] = field(default_factory=list)
    verify_faults: list[str] = field(default_factory=list)

    @property
    def right(self) -> bool:
        return not (
            self.lost or self.double or self.strangers or self.wrong_balances or self.wrong_flags or self.verify_faults
        )


def look(expected: Expected, database_url: str, redis_url: str) -> Found:
    """Compare everything, event by event and workspace by workspace."""
    found = Found()
    with psycopg.connect(database_url, autocommit=True) as conn:
        _logs(conn, expected, found)
        _quarantine(conn, expected, found)
        rows = conn.execute(
            """SELECT workspace_id, (balance * 1000000000000)::bigint, duplicate_count FROM taximeter.workspaces
               WHERE workspace_id <> ALL(%s)""",
            [list(HOLDING)],
        ).fetchall()
        found.duplicates_seen = sum(row[2] for row in rows)
        balances = {row[0]: row[1] for row in rows}
        for workspace in balances.keys() | expected.balances.keys():
            if balances.get(workspace, 0) != expected.balances[workspace]:
                found.wrong_balances.append(
                    f"{workspace}: {balances.get(workspace)} instead of {expected.balances[workspace]}"
                )
        report = verify(conn)
        found.verify_faults = [fault.sentence for fault in report.faults]
        with redis.Redis.from_url(redis_url, decode_responses=True) as client:
            _flags(conn, client, found)
    return found


def _logs(conn: psycopg.Connection, expected: Expected, found: Found) -> None:
    missing = expected.booked
    seen = {prefix: bytearray(len(numbers)) for prefix, numbers in missing.items()}
    logs = (
        "SELECT event_id FROM taximeter.usages WHERE workspace_id <> ALL(%s)",
        "SELECT payment_id FROM taximeter.payments WHERE workspace_id <> ALL(%s)",
    )
    for query in logs:
        with conn.transaction(), conn.cursor(name="all") as cursor:
            cursor.itersize = 20_000
            for (event_id,) in cursor.execute(query, [list(HOLDING)]):
                found.booked += 1
                prefix, _, number = event_id.rpartition("-")
                if prefix not in seen or int(number) >= len(seen[prefix]) or not missing[prefix][int(number)]:
                    found.strangers.append(event_id)
                else:
                    seen[prefix][int(number)] = min(seen[prefix][int(number)] + 1, _MANY)
    for prefix, numbers in missing.items():
        for number, wanted in enumerate(numbers):
            if seen[prefix][number] < wanted:
                found.lost.append(f"{prefix}-{number}")
            elif seen[prefix][number] > wanted:
                found.double.append(f"{prefix}-{number}")


def _quarantine(conn: psycopg.Connection, expected: Expected, found: Found) -> None:
    query = "SELECT reason, event_id, count(*) FROM taximeter.quarantine WHERE resolved_at IS NULL GROUP BY 1, 2"
    quarantined = {(reason, event_id): count for reason, event_id, count in conn.execute(query)}
    found.quarantined = sum(quarantined.values())
    for key in quarantined.keys() | expected.quarantined.keys():
        have, wanted = quarantined.get(key, 0), expected.quarantined[key]
        if have < wanted:
            found.lost.append(f"{key[1]} ({key[0]})")
        elif have > wanted:
            found.double.append(f"{key[1]} ({key[0]})")


def differing_flags(conn: psycopg.Connection, client: redis.Redis) -> dict[str, str]:
    """By workspace: how its flag in Redis differs from what the database says."""
    differing = {}
    for workspace, enabled, status in conn.execute(
        "SELECT workspace_id, ai_enabled, status FROM taximeter.workspace_balance"
    ):
        flag = client.hmget(names.flag_key(workspace), "enabled", "status")
        if flag != ["1" if enabled else "0", status]:
            differing[workspace] = f"{workspace}: Redis says {flag}, not {enabled}, {status}"
    return differing


def _flags(conn: psycopg.Connection, client: redis.Redis, found: Found) -> None:
    found.wrong_flags += differing_flags(conn, client).values()
    query = "SELECT workspace_id, trim_scale(balance)::text FROM taximeter.workspaces"
    for workspace, balance in conn.execute(query):
        if (shown := client.hget(names.balance_key(workspace), "balance")) != balance:
            found.wrong_flags.append(f"{workspace}: Redis says {shown}, not {balance}")
