-- Creates a workspace or changes its limits, in one statement. The limits that are not given keep their value, or take the
-- default. The database logs what changes, see the trigger log_limits.
-- Locks: the workspace's row.
INSERT INTO taximeter.workspaces AS w (workspace_id, minimum_balance, low_balance_threshold)
VALUES (%(id)s, coalesce(%(minimum)s::numeric, %(default_minimum)s::numeric),
        coalesce(%(low)s::numeric, greatest(%(default_low)s::numeric, %(minimum)s::numeric)))
ON CONFLICT (workspace_id) DO UPDATE
SET minimum_balance = coalesce(%(minimum)s::numeric, w.minimum_balance),
    low_balance_threshold = coalesce(%(low)s::numeric, w.low_balance_threshold),
    version = w.version + 1,
    updated_at = greatest(clock_timestamp(), w.updated_at + interval '1 microsecond')
