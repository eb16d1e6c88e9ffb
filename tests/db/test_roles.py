"""Who may do what in the database: the whole matrix of roles, tables and verbs, read from the catalogue and tried out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from taximeter_cli.embedded.logins import PARTS, part_url
from taximeter_db import access, connect, flag_debts, migrate, money, roles, workspaces
from taximeter_db.audit import verify
from taximeter_db.errors import SchemaError
from taximeter_db.ledger import booking, rollups
from taximeter_db.queries import payments, scope, summary, usages

ADD = "SELECT INSERT"
NOTHING: dict[str, str] = {}

# Every table and view. A new one fails the first test until somebody decides here and in sql/grants.sql who may do what.
# Column rights are written verb(columns).
MATRIX: dict[str, dict[str, str]] = {
    "usages": {"worker": ADD, "dashboard": "SELECT"},
    "usage_payloads": {"worker": ADD, "dashboard": "SELECT"},
    "usage_keys": {"worker": ADD, "dashboard": "SELECT"},
    "payments": {"worker": ADD, "dashboard": "SELECT"},
    "status_changes": {"worker": ADD, "dashboard": ADD},
    "chain_starts": NOTHING,
    "workspace_keys": {"worker": ADD, "dashboard": "SELECT"},
    "payload_erasures": {"dashboard": "SELECT"},
    "workspaces": {
        "worker": f"{ADD} UPDATE",
        "dashboard": "SELECT INSERT(low_balance_threshold,minimum_balance,workspace_id)"
        " UPDATE(budgets,low_balance_threshold,minimum_balance,updated_at,version)",
    },
    "budgets": {
        "worker": "SELECT UPDATE(due_at,exceeded,reached,window_start)",
        "dashboard": f"{ADD} UPDATE DELETE",
    },
    "budget_spending": {"worker": f"{ADD} UPDATE DELETE", "dashboard": f"{ADD} UPDATE DELETE"},
    "budget_crossings": {"worker": ADD, "dashboard": ADD},
    "quarantine": {"worker": f"{ADD} UPDATE(resolution,resolution_note,resolved_at,resolved_by)"},
    "quarantine_actions": {"worker": ADD},
    "notice_targets": {
        "worker": "SELECT UPDATE(disabled_at,disabled_why,failures,retry_at)",
        "dashboard": f"{ADD} UPDATE DELETE",
    },
    "statements": {"worker": ADD, "dashboard": ADD},
    "grants": {"worker": f"{ADD} UPDATE(settled_at)", "dashboard": "SELECT"},
    "statement_zones": {"worker": "SELECT", "dashboard": f"{ADD} UPDATE"},
    "notices": {"worker": f"{ADD} DELETE", "dashboard": ADD},
    "notice_deliveries": {"worker": f"{ADD} UPDATE DELETE", "dashboard": f"{ADD} UPDATE"},
    "notice_lanes": {"worker": f"{ADD} UPDATE DELETE", "dashboard": f"{ADD} UPDATE"},
    "missing_prices": {"worker": f"{ADD} UPDATE"},
    "notice_tries": {"worker": f"{ADD} DELETE", "dashboard": "SELECT"},
    "stale_flags": {"worker": f"{ADD} UPDATE DELETE", "dashboard": f"{ADD} UPDATE"},
    "ledger_state": {"worker": "SELECT UPDATE(epoch,master_key)", "dashboard": "SELECT"},
    "usage_partitions": {"worker": "SELECT"},
    "usage_rollups": {"worker": f"{ADD} UPDATE", "dashboard": f"{ADD} UPDATE"},
    "label_rollups": {"worker": f"{ADD} UPDATE", "dashboard": f"{ADD} UPDATE"},
    "label_totals": {"worker": f"{ADD} UPDATE", "dashboard": f"{ADD} UPDATE"},
    "rollup_progress": {"worker": f"{ADD} UPDATE", "dashboard": f"{ADD} UPDATE"},
    "usage_names": {"worker": ADD, "dashboard": ADD},
    "usage_id_pages": {"worker": ADD, "dashboard": ADD},
    "workspace_changes": {"dashboard": ADD},
    "workspace_readers": {"dashboard": f"{ADD} DELETE"},
    "service_tokens": {"dashboard": f"{ADD} DELETE"},
    "operator_looks": {"dashboard": "INSERT"},
    "exports": {"dashboard": f"{ADD} UPDATE(moved_at,rows_done,state)"},
    "used_sign_ins": {"dashboard": f"{ADD} DELETE"},
    "price_revisions": {"worker": "SELECT", "dashboard": "SELECT"},
    "price_entries": {"worker": "SELECT", "dashboard": "SELECT"},
    "price_links": NOTHING,
    "price_aliases": {"worker": "SELECT", "dashboard": "SELECT"},
    "alembic_version": {"worker": "SELECT", "dashboard": "SELECT", "metrics": "SELECT", "gateway": "SELECT"},
    "producer_keys": {"gateway": "SELECT"},
    "repricings": NOTHING,
    "repriced_workspaces": NOTHING,
    "repriced_usages": {"dashboard": "SELECT"},
    # views for BI tools: an administrator grants them to whom they are for
    "workspace_balance": NOTHING,
    "usage_log": NOTHING,
    "payment_log": NOTHING,
    "quarantine_log": NOTHING,
    "quarantine_history": NOTHING,
    "usage_pricing": NOTHING,
    "repricing_log": NOTHING,
}
FUNCTIONS = {
    "ensure_partitions": {"worker"},
    "ensure_partition_at": {"worker"},
    "page_workspaces": {"dashboard"},
    "page_versions": {"dashboard"},
    "service_token": {"dashboard"},
    "notice_targets_of": {"worker", "dashboard"},
    "metrics_notices": {"worker", "metrics"},
    "metrics_overview": {"worker", "metrics"},
    "forget_dismissed": {"worker"},
    "link_price_revision": set(),
    "log_limits": set(),
    "metrics_quarantine": {"worker", "metrics"},
    "metrics_quarantine_bytes": {"worker", "metrics"},
    "metrics_budgets": {"worker", "metrics"},
    "metrics_stale_flags": {"worker", "metrics"},
    "metrics_overdraft": {"worker", "metrics"},
}
VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE")
_RELATIONS = """
SELECT c.oid, c.relname, c.relispartition, c.relrowsecurity,
       array(SELECT a.attname::text FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0
             AND NOT a.attisdropped ORDER BY 1)
FROM pg_class AS c WHERE c.relnamespace = 'taximeter'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""
STATEMENTS = {
    "SELECT": "SELECT * FROM taximeter.{table}",
    "INSERT": "INSERT INTO taximeter.{table} DEFAULT VALUES",
    "UPDATE": "UPDATE taximeter.{table} SET {column} = DEFAULT",
    "DELETE": "DELETE FROM taximeter.{table}",
    "TRUNCATE": "TRUNCATE taximeter.{table}",
}


@pytest.fixture
def login(role_url: Callable[[str], str]) -> Iterator[Callable[[str], psycopg.Connection[Any]]]:
    """Connections as one of the parts."""
    made: list[psycopg.Connection[Any]] = []

    def make(part: str) -> psycopg.Connection[Any]:
        made.append(connect.booking_connection(role_url(part)) if part == "worker" else connect.connect(role_url(part)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def _rights(conn: psycopg.Connection[Any], part: str, oid: int, columns: list[str]) -> str:
    """What a login may do with a relation, spelled as in MATRIX."""
    found = []
    for verb in VERBS:
        if conn.execute("SELECT has_table_privilege(%s, %s::oid, %s)", [part, oid, verb]).fetchone()[0]:
            found.append(verb)
        elif verb in {"SELECT", "INSERT", "UPDATE"}:
            query = "SELECT column_name FROM unnest(%s::text[]) AS column_name WHERE has_column_privilege(%s, %s::oid, column_name, %s)"
            some = [row[0] for row in conn.execute(query, [columns, part, oid, verb])]
            found += [f"{verb}({','.join(some)})"] if some else []
    return " ".join(found)


def test_every_relation_gives_each_role_exactly_what_was_decided(conn):
    found = {}
    for oid, name, is_partition, _, columns in conn.execute(_RELATIONS).fetchall():
        rights = {part: text for part in PARTS if (text := _rights(conn, part, oid, columns))}
        if is_partition:
            assert rights == {}, f"the partition {name} can be named directly"
        else:
            found[name] = rights
    assert found == MATRIX


def test_every_forbidden_statement_is_refused(conn, usage, payment, login):
    booking.book(conn, [usage(payload=b"{}")], [payment()])
    views = {
        name for (name,) in conn.execute("SELECT viewname FROM pg_views WHERE schemaname = 'taximeter'").fetchall()
    }
    relations = {name: columns for _, name, _, _, columns in conn.execute(_RELATIONS).fetchall()}
    tried = 0
    for part in PARTS:
        mine = login(part)
        for table, columns in relations.items():
            allowed = MATRIX.get(table, {}).get(part, "")
            for verb in VERBS:
                if verb in allowed or (table in views and verb != "SELECT"):
                    continue
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    mine.execute(STATEMENTS[verb].format(table=table, column=columns[0]))
                tried += 1
    assert tried > 300
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        login("dashboard").execute("UPDATE taximeter.workspaces SET balance = 1")


@pytest.mark.parametrize("part", PARTS)
def test_no_role_may_make_things_or_become_more(login, part: str):
    mine = login(part)
    for statement in (
        "CREATE TABLE taximeter.mine (a int)",
        "CREATE SCHEMA mine",
        "ALTER TABLE taximeter.workspaces DISABLE ROW LEVEL SECURITY",
        "DROP TRIGGER append_only ON taximeter.usages",
        "SET ROLE taximeter",
        "SET SESSION AUTHORIZATION postgres",
        "CREATE ROLE other",
        f"ALTER ROLE {part} SUPERUSER",
        "SELECT pg_read_file('/etc/passwd')",
        "COPY taximeter.price_entries TO PROGRAM 'cat'",
        "SET session_replication_role = replica",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            mine.execute(statement)


def test_functions_that_run_as_their_owner_are_for_whom_they_were_decided(conn):
    query = """SELECT p.proname, (SELECT bool_or(a.grantee = 0) FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a),
                      array(SELECT m FROM unnest(%s::text[]) AS m WHERE has_function_privilege(m, p.oid, 'EXECUTE')),
                      p.proconfig
               FROM pg_proc AS p WHERE p.pronamespace = 'taximeter'::regnamespace AND p.prosecdef"""
    found = conn.execute(query, [list(PARTS)]).fetchall()
    assert {name: set(allowed) for name, _, allowed, _ in found} == FUNCTIONS
    for name, public, _, configuration in found:
        assert not public, f"{name} may be called by anybody"
        assert "search_path=pg_catalog, pg_temp" in configuration, f"{name} can be led astray by a search path"


def test_whatever_the_dashboard_reads_of_workspaces_is_under_row_level_security(conn):
    for _, name, is_partition, secured, columns in conn.execute(_RELATIONS).fetchall():
        # A discount for one workspace is part of the price book, which receipts are made from.
        if "dashboard" in MATRIX.get(name, {}) and "workspace_id" in columns and not is_partition:
            assert secured or name == "price_entries", name


def test_a_worker_books_as_the_worker(login, usage, payment, conn):
    mine = login("worker")
    outcome = booking.book(mine, [usage(payload=b"{}"), usage()], [payment()])
    assert outcome.usages_booked == 2
    assert rollups.advance(mine, "acme") == (2, 2)
    assert verify.verify(conn).ok


def test_without_the_exemption_a_worker_is_told_what_to_do(own_postgres):
    server = own_postgres()
    migrate.upgrade(server.url())
    with psycopg.connect(server.admin_url(), autocommit=True) as admin:
        admin.execute("ALTER ROLE worker NOBYPASSRLS")
    with pytest.raises(SchemaError, match='ALTER ROLE "worker" BYPASSRLS'):
        connect.booking_connection(part_url(server.url(), "worker"))


def test_the_dashboard_sees_the_one_workspace_it_entered(login, conn, usage, payment):
    booking.book(conn, [usage("acme", payload=b"{}"), usage("other", payload=b"{}")], [payment("other")])
    mine = login("dashboard")
    tables = [name for name, rights in MATRIX.items() if "SELECT" in rights.get("dashboard", "").split()]
    mine.execute("SELECT set_config('taximeter.workspace_id', 'other', true)")  # outside of a transaction: of no effect
    assert summary.read(mine, "other").known is False
    with mine.transaction():
        scope.enter(mine, "acme")
        assert summary.read(mine, "acme").known
        assert not summary.read(mine, "other").known
        assert [row.seq for row in usages.between(mine, "acme", 1, 9)] == [1]
        assert usages.between(mine, "other", 1, 9) == payments.between(mine, "other", 1, 9) == []
        rollups.advance(mine, "acme")
        made = mine.execute("SELECT workspace_id, usages FROM taximeter.usage_rollups").fetchall()
        assert made == [("acme", 1)]
        for table in tables:
            found = conn.execute(f"SELECT relrowsecurity FROM pg_class WHERE oid = 'taximeter.{table}'::regclass")
            if found.fetchone()[0]:
                seen = mine.execute(f"SELECT DISTINCT workspace_id FROM taximeter.{table}").fetchall()
                assert set(seen) <= {("acme",)}, table
    # the pool hands the connection on: the next transaction sees nothing
    assert mine.execute("SELECT count(*) FROM taximeter.usages").fetchone() == (0,)


def test_the_dashboard_writes_into_no_other_workspace(login, conn, payment):
    booking.book(conn, [], [payment("acme"), payment("other")])
    mine = login("dashboard")
    with mine.transaction():
        scope.enter(mine, "acme")
        assert workspaces.set_limits(mine, "acme", low=10**12).low == 10**12
        access.allow(mine, "acme", "ada", "owner")
        access.log_look(mine, "acme", "operator", "/")
        assert (
            mine.execute("UPDATE taximeter.workspaces SET minimum_balance = -9 WHERE workspace_id = 'other'").rowcount
            == 0
        )
        for attempt in (
            lambda: access.allow(mine, "other", "eve", "eve"),
            lambda: access.log_change(mine, "other", "eve", "low", None, "1"),
            lambda: access.log_look(mine, "other", "eve", "/"),
            lambda: mine.execute("INSERT INTO taximeter.workspaces (workspace_id) VALUES ('third')"),
            lambda: mine.execute("INSERT INTO taximeter.stale_flags (workspace_id) VALUES ('other')"),
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"), mine.transaction():
                attempt()
    assert summary.read(conn, "other").minimum == money.MINIMUM_BALANCE_DEFAULT
    assert access.readers(conn, "other") == []


def test_lists_across_workspaces_are_narrow(login, conn, payment):
    booking.book(conn, [], [payment(name) for name in ("a", "b", "c")])
    mine = login("dashboard")
    assert [one.workspace_id for one in summary.glances(mine, None, "a", 9)] == ["b", "c"]
    assert [one.workspace_id for one in summary.glances(mine, ["a", "c"])] == ["a", "c"]
    assert summary.versions(mine, ["b", "none"]) == {"b": (1, 0, 1)}


def test_where_roles_cannot_be_made_migrate_says_what_to_do(own_postgres):
    server = own_postgres()
    with psycopg.connect(server.admin_url(), autocommit=True) as admin:
        admin.execute(f"DROP ROLE worker, dashboard, metrics, gateway, {', '.join(roles.ROLES)}")
        rights = migrate.upgrade(server.url())
        assert rights.missing == roles.ROLES
        assert "CREATE ROLE taximeter_worker NOLOGIN;" in rights.advice
        admin.execute("ALTER ROLE taximeter CREATEROLE")
        assert migrate.upgrade(server.url()).created == roles.ROLES
        assert migrate.upgrade(server.url()).advice is None


def test_a_role_that_is_new_and_cannot_be_made_keeps_no_rights_from_the_others(own_postgres):
    server = own_postgres()
    with psycopg.connect(server.admin_url(), autocommit=True) as admin:
        admin.execute("DROP ROLE gateway, taximeter_gateway")
        rights = migrate.upgrade(server.url())
        assert rights.missing == (roles.GATEWAY,)
        assert "CREATE ROLE taximeter_gateway NOLOGIN;" in rights.advice
        with connect.booking_connection(part_url(server.url(), "worker")) as worker:
            assert worker.execute("SELECT count(*) FROM taximeter.workspaces").fetchone() == (0,)
        admin.execute("CREATE ROLE taximeter_gateway NOLOGIN")
        assert migrate.upgrade(server.url()).advice is None
    with psycopg.connect(server.url()) as owner:
        question = "SELECT has_table_privilege('taximeter_gateway', 'taximeter.producer_keys', 'SELECT')"
        assert owner.execute(question).fetchone() == (True,)


def test_the_worker_sees_how_far_the_database_is(login, conn):
    mine = login("worker")
    before = flag_debts.cluster_position(mine)
    conn.execute("CREATE TABLE more AS SELECT generate_series(1, 1000)")
    after = flag_debts.cluster_position(mine)
    assert not after.went_back_from(before)
    assert before.went_back_from(after)
