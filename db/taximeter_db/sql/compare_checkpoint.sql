-- Finds the workspaces whose log no longer contains what a checkpoint says of it.
-- Takes: arrays of one length: workspaces, their numbers of usages and payments, their balances and links in the checkpoint.
-- Locks: nothing. Plan: each row by the primary keys of the logs.
-- Returns: a workspace and the number of entries that it had in the checkpoint.
SELECT c.workspace_id, c.usages + c.payments
FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::text[]::numeric[], %s::bytea[])
     AS c (workspace_id, usages, payments, balance, chain)
LEFT JOIN taximeter.usages AS u
  ON u.workspace_id = c.workspace_id AND u.seq = c.usages AND u.entry = c.usages + c.payments
LEFT JOIN taximeter.payments AS p
  ON p.workspace_id = c.workspace_id AND p.seq = c.payments AND p.entry = c.usages + c.payments
LEFT JOIN taximeter.chain_starts AS s
  ON s.workspace_id = c.workspace_id AND s.usage_count = c.usages AND s.payment_count = c.payments
WHERE c.chain <> coalesce(u.link, p.link, s.chain, '')
   OR (c.usages + c.payments > 0 AND coalesce(u.balance_after, p.balance_after) IS DISTINCT FROM c.balance)
ORDER BY c.workspace_id
