-- Reads how far the amounts of workspaces are from the ends of their ranges. Locks: nothing.
-- Returns: workspace_id, balance, usage_cost and payment_total of each that exists.
SELECT workspace_id, balance::text, usage_cost::text, payment_total::text
FROM taximeter.workspaces
WHERE workspace_id = ANY(%(workspace_ids)s::text[])
