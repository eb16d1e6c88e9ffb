-- What the list of workspaces and the streams of open pages read, across row-level security: functions of the schema
-- that show a glance and nothing else (migration 0007). Locks: nothing.

-- name: glances
-- Takes: among (null: every workspace), after, limit. Returns: id, balance and limits, by id.
SELECT workspace_id, balance::text, minimum_balance::text, low_balance_threshold::text
FROM taximeter.page_workspaces(%(among)s::text[], %(after)s, %(limit)s) ORDER BY workspace_id COLLATE "C"

-- name: versions
-- Takes: workspace_ids. Returns: what changes when a workspace does.
SELECT workspace_id, version, usage_count, payment_count FROM taximeter.page_versions(%(workspace_ids)s::text[])

-- name: enter
-- Lets the rest of the transaction see one workspace's rows under row-level security. Takes: workspace_id.
SELECT set_config('taximeter.workspace_id', %(workspace_id)s, true)
