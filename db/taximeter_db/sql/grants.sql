-- Who may do what, applied whole after every migration, in one transaction. All is refused that is not named here, so
-- that a new table is nobody's but its owner's until a line is added (and to tests/db/test_roles.py).
-- The owner, who migrates, needs no line. Logins get these rights as members of the three roles.
-- Takes no lock that a booking waits for. {database} is the database's name.

REVOKE ALL ON ALL TABLES IN SCHEMA taximeter FROM PUBLIC, taximeter_worker, taximeter_dashboard, taximeter_metrics;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA taximeter FROM PUBLIC, taximeter_worker, taximeter_dashboard, taximeter_metrics;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA taximeter FROM taximeter_worker, taximeter_dashboard, taximeter_metrics;
REVOKE ALL ON SCHEMA taximeter FROM PUBLIC, taximeter_worker, taximeter_dashboard, taximeter_metrics;
-- These run as the owner.
REVOKE ALL ON FUNCTION taximeter.ensure_partitions, taximeter.ensure_partition_at, taximeter.page_workspaces,
    taximeter.page_versions, taximeter.metrics_overview, taximeter.metrics_quarantine, taximeter.metrics_quarantine_bytes,
    taximeter.metrics_stale_flags, taximeter.forget_dismissed, taximeter.log_limits, taximeter.link_price_revision,
    taximeter.service_token, taximeter.notice_targets_of, taximeter.metrics_notices, taximeter.metrics_overdraft,
    taximeter.metrics_budgets
    FROM PUBLIC;

GRANT CONNECT ON DATABASE {database} TO taximeter_worker, taximeter_dashboard, taximeter_metrics;
GRANT USAGE ON SCHEMA taximeter TO taximeter_worker, taximeter_dashboard, taximeter_metrics;

-- The worker books: it adds to the logs and never changes them; it moves balances; the rest are its own lists.
GRANT SELECT, INSERT ON taximeter.usage_keys, taximeter.usages, taximeter.usage_payloads, taximeter.payments,
    taximeter.status_changes, taximeter.workspace_keys TO taximeter_worker;
GRANT SELECT, INSERT, UPDATE ON taximeter.workspaces TO taximeter_worker;
GRANT SELECT, INSERT ON taximeter.quarantine, taximeter.quarantine_actions TO taximeter_worker;
GRANT USAGE ON SEQUENCE taximeter.quarantine_id_seq TO taximeter_worker;
GRANT UPDATE (resolved_at, resolution, resolved_by, resolution_note) ON taximeter.quarantine TO taximeter_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON taximeter.stale_flags TO taximeter_worker;
-- It writes notices and delivers them, forgets old ones, and disables a target that is gone.
GRANT SELECT, INSERT, DELETE ON taximeter.notices, taximeter.notice_tries TO taximeter_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON taximeter.notice_deliveries, taximeter.notice_lanes TO taximeter_worker;
GRANT SELECT, INSERT, UPDATE ON taximeter.missing_prices TO taximeter_worker;
GRANT SELECT, UPDATE (failures, retry_at, disabled_at, disabled_why) ON taximeter.notice_targets TO taximeter_worker;
GRANT SELECT, INSERT, UPDATE ON taximeter.usage_rollups, taximeter.label_rollups, taximeter.label_totals,
    taximeter.rollup_progress TO taximeter_worker;
GRANT SELECT, INSERT ON taximeter.usage_names, taximeter.usage_id_pages TO taximeter_worker;
GRANT SELECT, UPDATE (window_start, reached, exceeded, due_at) ON taximeter.budgets TO taximeter_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON taximeter.budget_spending TO taximeter_worker;
GRANT SELECT, INSERT ON taximeter.budget_crossings TO taximeter_worker;
GRANT SELECT, INSERT, UPDATE (settled_at) ON taximeter.grants TO taximeter_worker;
-- It closes months, which nobody changes again.
GRANT SELECT, INSERT ON taximeter.statements TO taximeter_worker;
GRANT SELECT ON taximeter.statement_zones TO taximeter_worker;
GRANT SELECT ON taximeter.ledger_state TO taximeter_worker;
GRANT UPDATE (epoch, master_key) ON taximeter.ledger_state TO taximeter_worker;
GRANT SELECT ON taximeter.price_revisions, taximeter.price_entries, taximeter.price_aliases,
    taximeter.alembic_version, taximeter.usage_partitions TO taximeter_worker;
GRANT EXECUTE ON FUNCTION taximeter.ensure_partitions, taximeter.ensure_partition_at, taximeter.forget_dismissed,
    taximeter.metrics_overview, taximeter.metrics_quarantine, taximeter.metrics_quarantine_bytes, taximeter.metrics_stale_flags,
    taximeter.notice_targets_of, taximeter.metrics_notices, taximeter.metrics_overdraft,
    taximeter.metrics_budgets TO taximeter_worker;

-- The dashboard reads the workspace that its transaction names (row-level security), keeps its own lists, and changes
-- two limits. It brings the rollups up to date before it shows them.
GRANT SELECT ON taximeter.workspaces, taximeter.usage_keys, taximeter.usages, taximeter.usage_payloads,
    taximeter.payments, taximeter.workspace_keys, taximeter.payload_erasures TO taximeter_dashboard;
GRANT INSERT (workspace_id, minimum_balance, low_balance_threshold),
    UPDATE (minimum_balance, low_balance_threshold, version, updated_at, budgets) ON taximeter.workspaces TO taximeter_dashboard;
GRANT SELECT, INSERT, UPDATE, DELETE ON taximeter.budgets, taximeter.budget_spending TO taximeter_dashboard;
GRANT SELECT, INSERT ON taximeter.budget_crossings TO taximeter_dashboard;
GRANT SELECT ON taximeter.repriced_usages TO taximeter_dashboard;
GRANT SELECT, INSERT, UPDATE ON taximeter.usage_rollups, taximeter.label_rollups, taximeter.label_totals,
    taximeter.rollup_progress TO taximeter_dashboard;
GRANT SELECT, INSERT ON taximeter.usage_names, taximeter.usage_id_pages TO taximeter_dashboard;
GRANT SELECT, INSERT ON taximeter.workspace_changes, taximeter.status_changes TO taximeter_dashboard;
GRANT SELECT, INSERT, DELETE ON taximeter.workspace_readers TO taximeter_dashboard;
GRANT SELECT, INSERT, DELETE ON taximeter.service_tokens TO taximeter_dashboard;
GRANT INSERT ON taximeter.operator_looks TO taximeter_dashboard;
GRANT SELECT, INSERT, UPDATE (moved_at, rows_done, state) ON taximeter.exports TO taximeter_dashboard;
GRANT SELECT, INSERT, DELETE ON taximeter.used_sign_ins TO taximeter_dashboard;
GRANT SELECT, INSERT, UPDATE ON taximeter.stale_flags TO taximeter_dashboard;
-- Its limits cause notices; their targets are a workspace's settings.
GRANT SELECT, INSERT ON taximeter.notices TO taximeter_dashboard;
GRANT SELECT, INSERT, UPDATE ON taximeter.notice_deliveries, taximeter.notice_lanes TO taximeter_dashboard;
GRANT SELECT ON taximeter.notice_tries TO taximeter_dashboard;
GRANT SELECT, INSERT, UPDATE, DELETE ON taximeter.notice_targets TO taximeter_dashboard;
GRANT SELECT ON taximeter.grants TO taximeter_dashboard;
-- It closes a month that it is asked for, if no worker has yet.
GRANT SELECT, INSERT ON taximeter.statements TO taximeter_dashboard;
GRANT SELECT, INSERT, UPDATE ON taximeter.statement_zones TO taximeter_dashboard;
GRANT SELECT ON taximeter.ledger_state, taximeter.price_revisions, taximeter.price_entries, taximeter.price_aliases,
    taximeter.alembic_version TO taximeter_dashboard;
GRANT EXECUTE ON FUNCTION taximeter.page_workspaces, taximeter.page_versions, taximeter.service_token,
    taximeter.notice_targets_of TO taximeter_dashboard;

-- Metrics: sums and counts, and whether they fit the schema.
GRANT SELECT ON taximeter.alembic_version TO taximeter_metrics;
GRANT EXECUTE ON FUNCTION taximeter.metrics_overview, taximeter.metrics_quarantine, taximeter.metrics_quarantine_bytes,
    taximeter.metrics_stale_flags, taximeter.metrics_notices, taximeter.metrics_overdraft,
    taximeter.metrics_budgets TO taximeter_metrics;
