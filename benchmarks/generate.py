"""Fill a ledger with usages by SQL, as booking would have left them: running balances, numbers without a gap, keys.

    python -m benchmarks.generate URL --usages 10000000 --workspaces 1 --days 60 --payloads --rollups

URL is that of an empty, migrated database, as its owner. Rows are spread evenly over the workspaces and over the days up to
now, oldest first; partitions are made back to the first day in the ledger's width (or another: ``--width day``). The same
arguments give the same rows, times apart. `verify` passes afterwards.
"""

from __future__ import annotations

import argparse
import datetime as dt
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from psycopg import Connection

from taximeter_db import connect
from taximeter_db.ledger import rollups
from taximeter_db.ledger.partitions import ensure

RUN = 250_000
PAID = 5_000
"""USD that every workspace was given once, before its first usage; a thousand times that where its usages cost more."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What to write. `ids`: ``uuid7``, as the SDK makes them, or ``random``, as some foreign producers do."""

    usages: int
    workspaces: int = 1_000
    days: float = 60.0
    ids: str = "uuid7"
    payloads: bool = False
    width: str | None = None
    prefix: str = "ws-"
    users: int = 0
    """How many users each workspace has, a few of whom have most of its usages; 0: nobody is named."""
    teams: int = 0
    """How many values the tag ``team`` has, borne in turn by the usages; 0: none."""

    def workspace_id(self, number: int) -> str:
        """Id of the workspace of a number from 0."""
        return f"{self.prefix}{number:06d}"


# A usage costs 0.006 USD, every eighth of a workspace 0.06: so sums follow from the number alone.
_COST = "CASE WHEN seq % 8 = 0 THEN 0.06 ELSE 0.006 END"
_SPENT = "seq * 0.006 + seq / 8 * 0.054"
_KEY = {
    # 48 bits of milliseconds, version 7, variant a, the rest from the row's number
    "uuid7": """overlay(overlay(md5(n::text) placing lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') from 1)
                placing '7' from 13)""",
    "random": "overlay(md5(n::text) placing '4' from 13)",
}
_MADE = """
WITH numbered AS (
    SELECT n, %(prefix)s || lpad((n % %(workspaces)s)::text, 6, '0') AS workspace_id, n / %(workspaces)s + 1 AS seq,
           %(until)s - make_interval(secs => %(seconds)s * (1 - n / %(usages)s::float8)) AS at
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
), made AS MATERIALIZED (
    SELECT n, workspace_id, seq, at, overlay({key} placing 'a' from 17)::uuid AS key FROM numbered
)
"""
_KEYS = """, keys AS (
    INSERT INTO taximeter.usage_keys (event_key, workspace_id, fingerprint, booked_at)
    SELECT key, workspace_id, md5(key::text)::uuid, at FROM made
)"""
_PAYLOADS = """, payloads AS (
    INSERT INTO taximeter.usage_payloads (seq, recorded_at, codec, workspace_id, payload)
    SELECT seq, at, 0, workspace_id,
           convert_to('{"input":"question ' || seq || '","output":"answer ' || seq || '"}', 'UTF8') FROM made
)"""
_USAGES = f"""
INSERT INTO taximeter.usages (seq, entry, price_version, occurred_at, recorded_at, cost, balance_after, workspace_id,
                              event_id, tool, provider, model, {{labels}}quantities)
SELECT seq, seq + 1, 1, at, at, {_COST}, %(paid)s - ({_SPENT}), workspace_id, key::text,
       (ARRAY['chat', 'search', 'summaries', 'images'])[1 + seq % 4], 'openai',
       (ARRAY['gpt-4o', 'gpt-4o-mini', 'o3'])[1 + seq % 3], {{named}}
       CASE WHEN seq % 8 = 0 THEN '{{"input_tokens": 12000, "output_tokens": 3000}}'::json
            ELSE '{{"input_tokens": 1200, "output_tokens": 300}}'::json END
FROM made
"""
_LABELS = {
    # By steps of the golden ratio, to the third power: of 2,000 users the first has a twelfth of all usages.
    "user_id": """'u-' || floor(%(users)s * power(seq * 0.618033988749895::float8 - floor(seq * 0.618033988749895::float8), 3))""",
    "tags": """json_build_object('team', 't-' || seq % %(teams)s)""",
}
_WORKSPACES = f"""
WITH counted AS (
    SELECT %(prefix)s || lpad(n::text, 6, '0') AS workspace_id,
           (%(usages)s - n + %(workspaces)s - 1) / %(workspaces)s AS seq
    FROM generate_series(0, %(workspaces)s - 1) AS n
), written AS (
    INSERT INTO taximeter.payments (workspace_id, payment_id, seq, entry, kind, amount, balance_after, fingerprint,
                                    occurred_at, recorded_at)
    SELECT workspace_id, 'first', 1, 1, 'top_up', %(paid)s, %(paid)s, md5(workspace_id)::uuid,
           %(until)s - make_interval(secs => %(seconds)s + 1), %(until)s - make_interval(secs => %(seconds)s + 1)
    FROM counted
)
INSERT INTO taximeter.workspaces (workspace_id, balance, usage_cost, payment_total, usage_count, payment_count, version)
SELECT workspace_id, %(paid)s - ({_SPENT}), {_SPENT}, %(paid)s, seq, 1, seq + 1 FROM counted
"""


def fill(
    url: str,
    shape: Shape,
    progress: Callable[[int], object] = int,
    connections: int = 2,
    profile: connect.Profile = connect.PLAIN,
) -> None:
    """Write it all, in runs of 250,000 rows on some connections at once, and analyse the tables.

    Args:
        url: An empty, migrated database, as its owner.
        shape: What to write.
        progress: Called with the number of usages written so far.
        connections: How many runs are written at once.
        profile: How to connect; `connect.MIGRATIONS` to a schema of before.
    """
    with connect.connection(url, profile=profile) as conn:
        lay_partitions(conn, shape.days, shape.width)
        parameters = _parameters(shape)
        conn.execute(_escaped(_WORKSPACES), parameters)
    statement = _escaped(
        _MADE.replace("{key}", _KEY[shape.ids]) + _KEYS + (_PAYLOADS if shape.payloads else "") + _usages(shape)
    )

    def write(first: int) -> int:
        last = min(first + RUN, shape.usages) - 1
        with connect.connection(url, profile=profile) as conn:
            # The rows can be made again; what is measured afterwards commits as always.
            conn.execute("SET synchronous_commit = off; SET timezone = 'UTC'")
            conn.execute(statement, {**parameters, "first": first, "last": last})
        return last + 1 - first

    done = 0
    with ThreadPoolExecutor(connections) as pool:
        for written in pool.map(write, range(0, shape.usages, RUN)):
            done += written
            progress(done)
    with connect.connection(url, profile=profile) as conn:
        if shape.users or shape.teams:
            # The rollups of labels begin where a release first knew labels; these bear them from the first day on.
            conn.execute(
                "UPDATE taximeter.ledger_state SET labels_since = %s - make_interval(secs => %s)",
                [parameters["until"], parameters["seconds"]],
            )
        # The generated usages bear no link; what is booked after them begins a chain.
        conn.execute("SELECT taximeter.start_chains()")
        # Not only statistics: hint bits and visibility are set here and not by whoever reads first.
        conn.execute("VACUUM (ANALYZE)")


def _usages(shape: Shape) -> str:
    """The rows of the log. Columns of labels are named where there are labels: older schemas have none."""
    given = [name for name, number in (("user_id", shape.users), ("tags", shape.teams)) if number]
    return _USAGES.replace("{labels}", "".join(f"{name}, " for name in given)).replace(
        "{named}", "".join(f"{_LABELS[name]}, " for name in given)
    )


def _escaped(statement: str) -> str:
    """The remainder operator doubled, as psycopg wants it beside parameters."""
    return statement.replace(" % ", " %% ")


def _parameters(shape: Shape) -> dict[str, Any]:
    return {
        "usages": shape.usages,
        "workspaces": shape.workspaces,
        "prefix": shape.prefix,
        "users": shape.users,
        "teams": shape.teams,
        "seconds": shape.days * 86_400,
        "paid": PAID if shape.usages / shape.workspaces < 100_000 else 1_000 * PAID,
        "until": dt.datetime.now(dt.UTC),
    }


def lay_partitions(conn: Connection[Any], days: float, width: str | None = None) -> int:
    """Replace the log's empty partitions by ones of this width that begin some days ago; returns their number.

    Raises:
        SystemExit: The log holds usages.
    """
    if conn.execute("SELECT 1 FROM taximeter.usages LIMIT 1").fetchone():
        raise SystemExit("The ledger holds usages. Generate into an empty one.")
    with conn.transaction():
        for parent in ("usages", "usage_payloads"):
            for (name,) in conn.execute(
                "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass",
                [f"taximeter.{parent}"],
            ).fetchall():
                conn.execute(f"DROP TABLE {name}")
        conn.execute("DELETE FROM taximeter.usage_partitions")
        if width is not None:
            conn.execute("UPDATE taximeter.ledger_state SET partition_width = %s", [width])
        moment, now = conn.execute("SELECT now() - make_interval(secs => %s), now()", [days * 86_400]).fetchone()  # type: ignore[misc]
        past = 0
        while moment <= now:
            (moment,) = conn.execute("SELECT taximeter.ensure_partition_at(%s)", [moment]).fetchone()  # type: ignore[misc]
            past += 1
        return past + ensure(conn)


def roll_up(url: str, shape: Shape) -> None:
    """Bring the page's rollups up to date."""
    with connect.connection(url) as conn:
        for number in range(shape.workspaces):
            reached, count = 0, 1
            while reached < count:
                reached, count = rollups.advance(conn, shape.workspace_id(number), run_max=1_000_000)
        conn.execute("ANALYZE taximeter.usage_rollups")


def leave_rollups(url: str) -> None:
    """Have the workers roll up what is booked from now on, and not millions of usages while something else is measured."""
    with connect.connection(url) as conn:
        conn.execute(
            "INSERT INTO taximeter.rollup_progress (workspace_id, seq) "
            "SELECT workspace_id, usage_count FROM taximeter.workspaces ON CONFLICT DO NOTHING"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.generate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url", help="an empty, migrated database, as its owner")
    parser.add_argument("--usages", type=int, default=1_000_000)
    parser.add_argument("--workspaces", type=int, default=1_000)
    parser.add_argument("--days", type=float, default=60.0, help="spread over this number of days up to now (60)")
    parser.add_argument("--ids", choices=sorted(_KEY), default="uuid7")
    parser.add_argument("--prefix", default="ws-", help="workspaces are called PREFIX000000 and so on (ws-)")
    parser.add_argument(
        "--users", type=int, default=0, help="that each workspace has, some far busier than others (nobody)"
    )
    parser.add_argument("--teams", type=int, default=0, help="values of the tag team, borne in turn (no tag)")
    parser.add_argument("--width", choices=["day", "week", "month"], help="of the partitions (the ledger's)")
    parser.add_argument("--payloads", action="store_true", help="with an input and an output each")
    parser.add_argument("--rollups", action="store_true", help="with the page's rollups")
    given = parser.parse_args()
    fields = {name: getattr(given, name) for name in Shape.__struct_fields__}
    shape = Shape(**fields)
    begun = time.monotonic()
    fill(given.url, shape, lambda done: print(f"  {done:,} usages, {time.monotonic() - begun:.0f} s", flush=True))
    if given.rollups:
        roll_up(given.url, shape)
        print(f"  rollups, {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
