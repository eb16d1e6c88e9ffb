"""Row-level security per workspace, and the narrow functions for what is read across workspaces.

Who may do what is in sql/grants.sql, which every `taximeter migrate` applies anew.

Revision ID: 0007
Revises: 0006
"""

from alembic import op

from taximeter_db.migrations.online import lock_tables

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

POLICIES = """
-- Whoever is neither the owner nor exempt (BYPASSRLS) sees and writes the rows of one workspace: the one that its
-- transaction has named. Unset or left empty: none. The sub-select is asked once a query, not once a row.
CREATE FUNCTION taximeter.keep_to_workspace(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE taximeter.%I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('CREATE POLICY one_workspace ON taximeter.%I
                    USING (workspace_id = (SELECT current_setting(''taximeter.workspace_id'', true)))', name);
END $$;

SELECT taximeter.keep_to_workspace(name) FROM unnest(ARRAY[
    'workspaces', 'usage_keys', 'usages', 'usage_payloads', 'payments', 'quarantine', 'stale_flags', 'status_changes',
    'usage_rollups', 'rollup_progress', 'usage_names', 'workspace_changes', 'workspace_readers', 'operator_looks',
    'repricings', 'repriced_workspaces', 'repriced_usages']) AS name;
"""

# Each runs as its owner, so each is as narrow as its use.
FUNCTIONS = """
-- The list of workspaces on the page: the next `lines` by id after `after`, of all or of those in `among`.
CREATE FUNCTION taximeter.page_workspaces(among text[], after text, lines integer)
    RETURNS TABLE (workspace_id text, balance numeric, minimum_balance numeric, low_balance_threshold numeric)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT w.workspace_id, w.balance, w.minimum_balance, w.low_balance_threshold FROM taximeter.workspaces AS w
    WHERE w.workspace_id > page_workspaces.after
      AND (page_workspaces.among IS NULL OR w.workspace_id = ANY(page_workspaces.among))
    ORDER BY w.workspace_id LIMIT page_workspaces.lines
$$;

-- Whether something changed in workspaces that somebody watches: counters, no amounts.
CREATE FUNCTION taximeter.page_versions(among text[])
    RETURNS TABLE (workspace_id text, version bigint, usage_count bigint, payment_count bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT w.workspace_id, w.version, w.usage_count, w.payment_count FROM taximeter.workspaces AS w
    WHERE w.workspace_id = ANY(page_versions.among)
$$;

-- Workspaces by status and by bucket of their balance, with sums; names none of them.
CREATE FUNCTION taximeter.metrics_overview(bounds numeric[])
    RETURNS TABLE (status text, bucket integer, workspaces bigint, balance numeric, payment_total numeric,
                   usage_cost numeric)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT taximeter.balance_status(w.balance, w.minimum_balance, w.low_balance_threshold),
           cardinality(bounds) - width_bucket(-w.balance, bounds), count(*), sum(w.balance), sum(w.payment_total),
           sum(w.usage_cost)
    FROM taximeter.workspaces AS w GROUP BY 1, 2
$$;

CREATE FUNCTION taximeter.metrics_quarantine() RETURNS TABLE (reason text, entries bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT q.reason, count(*) FROM taximeter.quarantine AS q WHERE q.resolved_at IS NULL GROUP BY 1
$$;

CREATE FUNCTION taximeter.metrics_stale_flags() RETURNS bigint
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*) FROM taximeter.stale_flags
$$;
"""


def upgrade() -> None:
    lock_tables(
        "workspaces",
        "usage_keys",
        "usages",
        "usage_payloads",
        "payments",
        "quarantine",
        "stale_flags",
        "status_changes",
        "usage_rollups",
        "rollup_progress",
        "usage_names",
        "workspace_changes",
        "workspace_readers",
        "operator_looks",
        "repricings",
        "repriced_workspaces",
        "repriced_usages",
    )
    cursor = op.get_bind().connection.cursor()
    for script in (POLICIES, FUNCTIONS):
        cursor.execute(script)
