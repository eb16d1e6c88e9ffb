-- Reads sums over all workspaces by status and bucket of balances, through a function that the role for metrics may call.
-- Takes: the bounds of the buckets. Locks: nothing.
SELECT status, bucket, workspaces, balance, payment_total, usage_cost FROM taximeter.metrics_overview(%s::numeric[])
