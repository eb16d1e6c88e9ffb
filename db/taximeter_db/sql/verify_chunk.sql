-- Recomputes a run of workspaces from their logs and returns those that do not agree.
-- Takes: the ids of the run, after `after` up to and including `upto`. Locks: nothing; one snapshot, the caller's.
-- Returns a row for each workspace at fault, with the kind of fault and the first entry at which it shows:
--   running   a row's balance_after is not the sum of the log up to it
--   gap       entries (usages and payments together) or usage numbers are not 1, 2, 3, …
--   total     the workspace's balance or counters are not those of its log
--   keys      usages without their idempotency key, or the other way round (counts only)
WITH entries AS (
    SELECT workspace_id, entry, seq AS usage_seq, -cost AS amount, balance_after
    FROM taximeter.usages WHERE workspace_id > %(after)s AND workspace_id <= %(upto)s
    UNION ALL
    SELECT workspace_id, entry, NULL, amount, balance_after
    FROM taximeter.payments WHERE workspace_id > %(after)s AND workspace_id <= %(upto)s
), walked AS (
    SELECT workspace_id, entry, usage_seq, amount, balance_after,
           sum(amount) OVER w AS balance_expected,
           row_number() OVER w AS entry_expected,
           CASE WHEN usage_seq IS NOT NULL THEN count(usage_seq) OVER w END AS seq_expected
    FROM entries
    WINDOW w AS (PARTITION BY workspace_id ORDER BY entry ROWS UNBOUNDED PRECEDING)
), summed AS (
    SELECT workspace_id,
           count(usage_seq) AS usages,
           count(*) - count(usage_seq) AS payments,
           coalesce(-sum(amount) FILTER (WHERE usage_seq IS NOT NULL), 0) AS cost,
           coalesce(sum(amount) FILTER (WHERE usage_seq IS NULL), 0) AS paid,
           min(entry) FILTER (WHERE balance_after <> balance_expected) AS running_at,
           min(entry) FILTER (WHERE entry <> entry_expected OR usage_seq <> seq_expected) AS gap_at
    FROM walked GROUP BY workspace_id
), compared AS (
    SELECT workspace_id, coalesce(s.usages, 0) AS usages, coalesce(s.payments, 0) AS payments,
           coalesce(s.cost, 0) AS cost, coalesce(s.paid, 0) AS paid, s.running_at, s.gap_at,
           w.usage_count, w.payment_count, w.usage_cost, w.payment_total, w.balance
    FROM (SELECT * FROM taximeter.workspaces WHERE workspace_id > %(after)s AND workspace_id <= %(upto)s) AS w
    FULL JOIN summed AS s USING (workspace_id)
)
SELECT workspace_id, usages, payments,
       CASE WHEN gap_at IS NOT NULL THEN 'gap'
            WHEN running_at IS NOT NULL THEN 'running'
            WHEN (usages, payments, cost, paid, paid - cost) IS DISTINCT FROM
                 (usage_count, payment_count, usage_cost, payment_total, balance) THEN 'total' END AS fault,
       coalesce(gap_at, running_at) AS entry,
       balance::text, (paid - cost)::numeric(27,12)::text
FROM compared
ORDER BY workspace_id
